//! What the server is like at a moment, as a line of JSON. docs/operations.md describes the fields.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::caller::id_word;
use crate::net::diag::Diag;
use crate::reactor::{Id, Moment};
use crate::server::meter::{PHASES, Total, Turn};
use crate::server::metrics::View;
use crate::server::story::awaited;
use crate::server::visits::Visited;
use crate::server::work::Status;

/// The most connections of a frame: more than a screen shows.
const ROWS_MAX: usize = 200;
/// The most bytes of a frame: what a Unix socket takes at once. So a watcher that reads has no frame left when the next one is due.
const FRAME_MAX_BYTES: usize = 64 << 10;
/// For how many connections the kernel is asked for the queues of their sockets, the busiest first: three system calls each.
const ROWS_WITH_QUEUES: usize = 25;

/// The server at a moment, as a watcher is shown it.
pub struct Shown<'a> {
    /// The server.
    pub view: &'a View<'a>,
    /// The kernel. `None`: it does not answer.
    pub diag: Option<&'a mut Diag>,
    /// The moment.
    pub now: Moment,
    /// How long the recent bytes of connections were counted.
    pub recent: Duration,
}

impl Shown<'_> {
    /// All of it, but for the opening brace.
    pub fn frame(&mut self) -> String {
        let head = json!({
            "turns": self.turns(),
            "ready": self.view.connections.ready(),
            "connections": self.view.connections.len(),
            "connections_max": self.view.acceptor.max_connections(),
            "draining": self.view.is_draining,
            "disk": self.disk(),
            "accept": { "pausing": self.view.acceptor.is_pausing(self.now), "pauses": self.view.acceptor.pauses() },
            "stats": self.stats(),
        });
        let mut line = head.to_string();
        line.pop();
        line.push(',');
        self.write_sessions(&mut line);
        line + "}\n"
    }

    /// The busiest connections.
    pub fn sessions(&mut self) -> String {
        let mut line = format!("{{\"connections\":{},", self.view.connections.len());
        self.write_sessions(&mut line);
        line + "}\n"
    }

    /// The turns that were measured.
    pub fn turns(&self) -> Value {
        let Total { phases, work_us, events, visits, bytes, yields, settled } = self.view.meter.total();
        let counts: Vec<u64> = work_us.counts().collect();
        let [recent, worst] = self.view.meter.worst();
        json!({
            "measured": self.view.meter.is_watched(),
            "count": work_us.total(),
            "work_us": work_us.sum(),
            "phases_us": phases_us(phases),
            "bounds_us": work_us.bounds(),
            "histogram": counts,
            "events": events.sum(),
            "visits": visits,
            "bytes": bytes,
            "yields": yields,
            "settled": settled,
            "worst_recent": self.turn(recent),
            "worst": self.turn(worst),
        })
    }

    fn turn(&self, turn: &Turn) -> Value {
        if turn.at == Moment::default() {
            return Value::Null;
        }
        let longest = turn.visits.longest.map(|(id, time)| {
            let seat = self.view.connections.seat(id);
            let peer = seat.map(|(_, whom)| whom.to_string());
            json!({ "id": id_word(id), "peer": peer, "us": us(time) })
        });
        json!({
            "ago_us": us(self.now.since(turn.at)),
            "work_us": us(turn.work),
            "phases_us": phases_us(&turn.phases),
            "events": turn.events,
            "ready": turn.ready,
            "settled": turn.settled,
            "visits": turn.visits.count,
            "bytes": turn.visits.bytes,
            "yields": turn.visits.yields,
            "longest_visit": longest,
        })
    }

    fn disk(&self) -> Value {
        let waits = self.view.connections.disk_waits_us();
        json!({
            "backlog": self.view.connections.store().waiting(),
            "done": waits.total(),
            "waited_us": waits.sum(),
        })
    }

    /// The counts since the start.
    pub fn stats(&self) -> Value {
        let stats = self.view.connections.stats();
        json!({
            "accepted": stats.accepted,
            "stored": stats.stored,
            "resumed": stats.resumed,
            "bytes": stats.content_bytes,
            "refused": stats.refused.values().sum::<u64>(),
            "lost": stats.lost,
            "silent": stats.silent,
            "uptime_s": self.view.time_of_day.saturating_sub(self.view.started),
        })
    }

    fn write_sessions(&mut self, line: &mut String) {
        let begin = line.len();
        let view = self.view;
        let mut rows: Vec<(Visited, Id)> =
            view.connections.ids().into_iter().map(|id| (view.connections.visits().of(id), id)).collect();
        if rows.len() > ROWS_MAX {
            rows.select_nth_unstable_by_key(ROWS_MAX, |(visited, id)| (std::cmp::Reverse(visited.recent_bytes), *id));
            rows.truncate(ROWS_MAX);
        }
        rows.sort_unstable_by_key(|(visited, id)| (std::cmp::Reverse(visited.recent_bytes), *id));
        line.push_str("\"sessions\":[");
        for (index, (visited, id)) in rows.iter().enumerate() {
            let row = self.session(*id, visited, index < ROWS_WITH_QUEUES);
            if begin.max(line.len()) + row.len() + 1 > FRAME_MAX_BYTES {
                break;
            }
            if index > 0 {
                line.push(',');
            }
            line.push_str(&row);
        }
        line.push(']');
    }

    fn session(&mut self, id: Id, visited: &Visited, with_queues: bool) -> String {
        let Some((connection, whom)) = self.view.connections.seat(id) else { return "null".into() };
        let quoted = |text: Option<String>| text.map_or("null".into(), |text| Value::from(text).to_string());
        let rate = visited.recent_bytes as f64 / self.recent.as_secs_f64().max(0.001);
        let (stored, refused) = whom.counts();
        let mut row = format!(
            "{{\"id\":\"{}\",\"peer\":\"{}\",\"who\":{},\"dialect\":\"{}\",\"awaits\":\"{}\",\"disk\":{},\"name\":{},\
             \"bytes\":{},\"rate\":{},\"age_us\":{},\"stored\":{stored},\"refused\":{refused},\"yields\":{},\
             \"disk_waits\":{},\"visits_us\":{}",
            id_word(id),
            whom.peer(),
            quoted(whom.who().map(|who| who.as_str().into())),
            connection.dialect().word(),
            awaited(connection.awaits()),
            quoted(disk_word(connection.work().status()).map(Into::into)),
            quoted(connection.work().name().map(ToString::to_string)),
            whom.content_bytes(),
            rate as u64,
            us(self.now.since(whom.accepted())),
            visited.yields,
            visited.disk_waits,
            us(visited.time),
        );
        let kernel = self.diag.as_mut().filter(|_| with_queues).zip(connection.local_addr());
        if let Some(tcp) =
            kernel.and_then(|(diag, local)| diag.connection(local, whom.peer()).ok()).filter(|tcp| !tcp.is_closed())
        {
            write!(row, ",\"recv_q\":{},\"send_q\":{}", tcp.unread, tcp.unacknowledged)
                .expect("writing to a String cannot fail");
        }
        row + "}"
    }
}

fn disk_word(status: Status) -> Option<&'static str> {
    match status {
        Status::Idle => None,
        Status::Ready => Some("works"),
        Status::Contends => Some("contends"),
        Status::WaitsForRoom => Some("waits for room"),
        Status::Waits => Some("waits"),
    }
}

fn phases_us(phases: &[Duration]) -> Value {
    PHASES
        .iter()
        .zip(phases)
        .map(|(name, time)| ((*name).to_owned(), us(*time).into()))
        .collect::<serde_json::Map<_, Value>>()
        .into()
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
