//! What a client of the admin socket may say, and what is remembered of it.
//!
//! A command is a line. Each is answered by a line of JSON; `watch` and `story` are followed by more. Values only: knows neither
//! sockets nor the server.

use std::time::Duration;

use log::LevelFilter;

use crate::reactor::{Id, Moment};

/// The most frames a second: more than an eye follows, and few enough to cost the server nothing.
const WATCH_MAX_HZ: u32 = 10;
/// The longest command, in bytes, its line feed included: `story` and the longest id are 27.
const COMMAND_MAX_BYTES: usize = 100;

/// The commands, for people.
pub const COMMANDS: &str = "sessions, turns, stats, drain, log LEVEL, watch [HZ], story ID, help, bye";

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The busiest connections.
    Sessions,
    /// The turns that were measured.
    Turns,
    /// The counts since the start.
    Stats,
    /// Shut down, as SIGTERM does.
    Drain,
    /// Log at this level from now on.
    Log(LevelFilter),
    /// A frame in each of these spans.
    Watch(Duration),
    /// The trace of a connection from now on.
    Story(Id),
    /// The commands.
    Help,
    /// The end.
    Bye,
}

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Shut down, unless it does so already.
    Drain,
    /// Log at this level.
    Log(LevelFilter),
    /// Trace this connection.
    Follow(Id),
    /// Count the recent bytes of connections anew: a frame has told them.
    ForgetRecent,
}

/// What is remembered of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// It asks, and is answered.
    #[default]
    Asks,
    /// It is sent frames.
    Watches {
        /// In which span one frame is due.
        every: Duration,
        /// When the next one is.
        due: Moment,
        /// Frames that it was not sent, because it had not read the one before.
        lost: u64,
    },
    /// It is sent the trace of a connection.
    Follows {
        /// The connection.
        id: Id,
        /// Lines that it was not sent, because it had not read those before.
        lost: u64,
    },
}

impl Caller {
    /// One that watches from `now` on.
    pub fn watches(every: Duration, now: Moment) -> Self {
        Self::Watches { every, due: now, lost: 0 }
    }

    /// Whether it is sent frames.
    pub fn is_watching(&self) -> bool {
        matches!(self, Self::Watches { .. })
    }

    /// When its next frame is due.
    pub fn due(&self) -> Option<Moment> {
        if let Self::Watches { due, .. } = self { Some(*due) } else { None }
    }

    /// Whether it follows `id`.
    pub fn follows(&self, followed: Id) -> bool {
        matches!(self, Self::Follows { id, .. } if *id == followed)
    }
}

/// The moment of the next frame after `now`. All who watch at the same rate get the same frames, so that each is made once.
pub fn next_due(every: Duration, now: Moment) -> Moment {
    let (every_ns, now_ns) = (every.as_nanos().max(1), now.since(Moment::default()).as_nanos());
    let next_ns = (now_ns / every_ns + 1) * every_ns;
    Moment::after(Duration::from_nanos(u64::try_from(next_ns).unwrap_or(u64::MAX)))
}

/// An id as people type it.
pub fn id_word(id: Id) -> String {
    format!("{}.{}", id.to_bits() >> 32, id.to_bits() as u32)
}

fn parse_id(word: &str) -> Option<Id> {
    let (serial, key) = word.split_once('.')?;
    Id::from_bits(u64::from(serial.parse::<u32>().ok()?) << 32 | u64::from(key.parse::<u32>().ok()?))
}

/// The first line of `input`: how many bytes it has, and the command or what is wrong with it. `None`: it is not whole yet.
pub fn read(input: &[u8]) -> Option<(usize, Result<Command, String>)> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        let is_too_long = input.len() > COMMAND_MAX_BYTES;
        return is_too_long.then(|| (input.len(), Err(format!("a command has at most {COMMAND_MAX_BYTES} bytes"))));
    };
    let command = match std::str::from_utf8(&input[..end]) {
        Ok(line) => parse(&line.split_whitespace().collect::<Vec<_>>()),
        Err(_) => Err("a command is UTF-8".into()),
    };
    Some((end + 1, command))
}

fn parse(words: &[&str]) -> Result<Command, String> {
    match words {
        ["sessions"] => Ok(Command::Sessions),
        ["turns"] => Ok(Command::Turns),
        ["stats"] => Ok(Command::Stats),
        ["drain"] => Ok(Command::Drain),
        ["log", level] => level
            .parse()
            .map(Command::Log)
            .map_err(|_| format!("{level:?} is no level: it is off, error, warn, info, debug or trace")),
        ["watch"] => Ok(Command::Watch(Duration::from_secs(1))),
        ["watch", hz] => match hz.parse() {
            Ok(hz @ 1..=WATCH_MAX_HZ) => Ok(Command::Watch(Duration::from_secs(1) / hz)),
            _ => Err(format!("{hz:?}: the frames of a second are a number from 1 to {WATCH_MAX_HZ}")),
        },
        ["story", word] => parse_id(word)
            .map(Command::Story)
            .ok_or_else(|| format!("{word:?} is no id of a connection: `sessions` tells them, such as 12.0")),
        ["help"] => Ok(Command::Help),
        ["bye"] => Ok(Command::Bye),
        _ => Err(format!("the commands are {COMMANDS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Result<Command, String> {
        let (taken, command) = read(line.as_bytes()).unwrap();
        assert_eq!(taken, line.len());
        command
    }

    #[test]
    fn each_command_is_a_line() {
        assert_eq!(command("sessions\n"), Ok(Command::Sessions));
        assert_eq!(command("log debug\r\n"), Ok(Command::Log(LevelFilter::Debug)));
        assert_eq!(command("watch 10\n"), Ok(Command::Watch(Duration::from_millis(100))));
        let id = Id::from_bits(12 << 32 | 3).unwrap();
        assert_eq!(command(&format!("story {}\n", id_word(id))), Ok(Command::Story(id)));
        assert_eq!(read(b"sess"), None);
        assert_eq!(read(b"stats\nturns\n"), Some((6, Ok(Command::Stats))));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for line in
            ["", "shutdown", "watch 11", "watch 0", "watch 1 2", "log loud", "story 1", "story 0.1", "story x.y"]
        {
            command(&format!("{line}\n")).unwrap_err();
        }
        command("\u{fffd}\n").unwrap_err();
        assert!(read(&[b'x'; 200]).unwrap().1.is_err());
        assert!(read(b"\xff\n").unwrap().1.is_err());
    }

    #[test]
    fn frames_of_the_same_rate_are_due_together() {
        let every = Duration::from_millis(100);
        let at = |ms| Moment::after(Duration::from_millis(ms));
        assert_eq!((next_due(every, at(1010)), next_due(every, at(1099))), (at(1100), at(1100)));
        assert_eq!(next_due(every, at(1100)), at(1200));
    }
}
