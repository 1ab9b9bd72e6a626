//! Ctrl-C: it ends a run, or the program.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use super::exit::Exit;

/// The first Ctrl-C ends the run, which then reports what it has; a second one ends the program.
pub fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    // If one fails, the signal itself ends the process, and shells report the same number.
    let _ = flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, stop.clone());
    let _ = flag::register(SIGINT, stop.clone());
    stop
}

/// Ctrl-C ends the program. An unfinished connection then ends with a reset, so that half a file is not taken for a whole
/// one.
pub fn exit_on_interrupt() {
    // If this fails, the signal itself ends the process, and shells report the same number.
    let _ = flag::register_conditional_shutdown(SIGINT, Exit::Interrupted as i32, Arc::new(AtomicBool::new(true)));
}
