//! Progress bars: one for the file of each connection, and one for all files. They are hidden unless standard error is a
//! terminal. Knows nothing of how files are sent.

use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bars.
pub struct Progress {
    bars: MultiProgress,
    jobs: Vec<ProgressBar>,
    /// The bar for all files.
    total: ProgressBar,
    state: Mutex<State>,
}

struct State {
    /// The position of each upload, in bytes.
    positions: Vec<u64>,
    /// The upload that each job's bar shows.
    shown: Vec<Option<usize>>,
}

/// The part of an upload that its bar shows.
pub struct Shown<'a> {
    /// The index of the upload.
    pub upload: usize,
    /// The name at the server.
    pub name: &'a str,
    /// The size in bytes, if it is known.
    pub size: Option<u64>,
}

const SIZED: &str = "{msg:20!} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNSIZED: &str = "{msg:20!} {spinner} {bytes} {bytes_per_sec}";

impl Progress {
    /// Bars for files of these sizes, sent over this many connections.
    pub fn new(sizes: &[Option<u64>], jobs: usize) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = ProgressBar::hidden().with_message(format!("{} files", sizes.len()));
        total.set_style(style(SIZED));
        total.set_length(sizes.iter().flatten().sum());
        // A single file needs no second bar.
        let total = if sizes.len() > 1 { bars.add(total) } else { total };
        let jobs: Vec<_> =
            (0..jobs.min(sizes.len())).map(|_| bars.add(ProgressBar::no_length().with_style(style("")))).collect();
        let state = State { positions: vec![0; sizes.len()], shown: vec![None; jobs.len()] };
        Self { bars, jobs, total, state: Mutex::new(state) }
    }

    /// Shows that an upload has reached `position`, in bytes.
    pub fn set(&self, job: usize, shown: &Shown<'_>, position: u64) {
        let mut state = self.state.lock().expect("no holder panics");
        let before = std::mem::replace(&mut state.positions[shown.upload], position);
        self.total.set_position((self.total.position() + position).saturating_sub(before));
        let bar = &self.jobs[job];
        if state.shown[job].replace(shown.upload) != Some(shown.upload) {
            bar.reset();
            bar.set_message(shown.name.to_owned());
            bar.set_style(style(if shown.size.is_some() { SIZED } else { UNSIZED }));
            shown.size.map_or_else(|| bar.unset_length(), |size| bar.set_length(size));
        }
        bar.set_position(position);
    }

    /// Hides the bars while `print` runs.
    pub fn suspended(&self, print: impl FnOnce()) {
        self.bars.suspend(print);
    }

    /// Removes the bars.
    pub fn clear(&self) {
        // Fails only if the terminal is gone.
        let _ = self.bars.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_follows_uploads_and_their_repetition() {
        let progress = Progress::new(&[Some(100), Some(50)], 4);
        let first = Shown { upload: 0, name: "a", size: Some(100) };
        let second = Shown { upload: 1, name: "b", size: Some(50) };
        progress.set(0, &first, 80);
        progress.set(1, &second, 50);
        assert_eq!((progress.total.position(), progress.total.length()), (130, Some(150)));
        progress.set(0, &first, 20);
        assert_eq!(progress.total.position(), 70);
        progress.set(0, &second, 50);
        assert_eq!((progress.jobs[0].message(), progress.jobs[0].length()), ("b".to_owned(), Some(50)));
    }
}
