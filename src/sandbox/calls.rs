//! Which system calls may be made (seccomp(2)).
//!
//! | a call that is | is answered with |
//! |---|---|
//! | listed here | what the kernel says |
//! | never made by an honest program of this kind | the death of the process by SIGSYS |
//! | newer than this list | ENOSYS, so that a libc uses the older call that it replaces |
//! | anything else | EPERM |
//!
//! A filter of seccompiler has two answers, so there are three filters. The kernel asks all of them, and takes the strictest
//! answer. A call that is allowed whatever its arguments costs next to nothing: the kernel notes that once, and no longer
//! asks the filters (since Linux 5.11).
//!
//! Refusals are not counted. The kernel keeps no count; it could ask another process about each (`SECCOMP_RET_USER_NOTIF`),
//! write them to the log of the system (`SECCOMP_FILTER_FLAG_LOG`), or interrupt the call by a signal (`SECCOMP_RET_TRAP`).
//! None of these can be had without `unsafe` here.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::libc::{self, c_long};
use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// What the server does, and what its libc needs for it: of glibc and of musl.
const ALLOWED: &[c_long] = &[
    // Content.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_splice,
    libc::SYS_lseek,
    libc::SYS_close,
    // Sockets that are open already. There are no new ones but those that are accepted.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Events.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_timerfd_settime,
    // Files. Landlock says which.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fcntl,
    // Memory and threads.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_geteuid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals, time and random numbers. Where the kernel offers clocks without a call, those are not made.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Older calls for the same, which not every processor has.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
];

/// What only an attacker asks of a server like this.
const DEADLY: &[c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    // Other namespaces and file trees.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // What exploits of the kernel have used most.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// From Linux 5.1 on new calls have the same number everywhere. This is the first one.
const FIRST_NEW: c_long = 424;
/// Linux has reached 470 in twelve years. A libc is not likely to try anything above this before the list is revised.
const LAST_NEW: c_long = 511;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Forbids all other calls to this thread and those that it will start. Returns what holds. No new privileges must be
/// forbidden already.
///
/// # Errors
/// In words: the kernel has no such filters.
pub(super) fn confine() -> Result<String, String> {
    let allowed = allowed().map_err(|error| format!("seccomp: {error}"))?;
    let words = format!("seccomp allows {} calls", allowed.len());
    for filter in compiled(allowed).map_err(|error| format!("seccomp: {error}"))? {
        apply_filter(&filter).map_err(|error| format!("seccomp: {error}"))?;
    }
    Ok(words)
}

/// In the order in which they are to be applied: the last one forbids further filters.
fn compiled(mut allowed: Rules) -> Result<[BpfProgram; 3], BackendError> {
    let (allow, error) = (SeccompAction::Allow, |errno: i32| SeccompAction::Errno(errno.cast_unsigned()));
    let new: Rules = (FIRST_NEW..=LAST_NEW).filter(|call| !allowed.contains_key(call)).map(whatever).collect();
    // Another filter answers for these.
    allowed.extend(new.clone());
    Ok([
        compile(DEADLY.iter().copied().map(whatever).collect(), allow.clone(), SeccompAction::KillProcess)?,
        compile(new, allow.clone(), error(libc::ENOSYS))?,
        compile(allowed, error(libc::EPERM), allow)?,
    ])
}

/// A call with any arguments.
fn whatever(call: c_long) -> (c_long, Vec<SeccompRule>) {
    (call, Vec::new())
}

fn compile(rules: Rules, others: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, others, listed, TargetArch::try_from(ARCH)?)?.try_into()
}

/// The calls that are allowed, some with certain arguments only.
fn allowed() -> Result<Rules, BackendError> {
    let mut rules: Rules = ALLOWED.iter().copied().map(whatever).collect();
    let executable = libc::PROT_EXEC.cast_unsigned();
    let own = u64::from(getpid().as_raw_pid().cast_unsigned());
    let abort = libc::SIGABRT.cast_unsigned();
    for (call, conditions) in [
        // Threads of this process, and no new process or namespace.
        (libc::SYS_clone, vec![masked(0, CLONE_KINDS, libc::CLONE_THREAD.cast_unsigned())?]),
        // Memory for data, not for code.
        (libc::SYS_mmap, vec![masked(2, executable, 0)?]),
        (libc::SYS_mprotect, vec![masked(2, executable, 0)?]),
        // An open file, not a path.
        (libc::SYS_utimensat, vec![is(1, SeccompCmpArgLen::Qword, 0)?]),
        // The name of a thread.
        (libc::SYS_prctl, vec![is(0, SeccompCmpArgLen::Dword, libc::PR_SET_NAME as u64)?]),
        // The limits can be asked for, not set.
        (libc::SYS_prlimit64, vec![is(2, SeccompCmpArgLen::Qword, 0)?]),
        // A panic ends this process.
        (libc::SYS_tgkill, vec![is(0, SeccompCmpArgLen::Dword, own)?, is(2, SeccompCmpArgLen::Dword, abort.into())?]),
        (libc::SYS_tkill, vec![is(1, SeccompCmpArgLen::Dword, abort.into())?]),
    ] {
        rules.insert(call, vec![SeccompRule::new(conditions)?]);
    }
    Ok(rules)
}

/// What clone(2) could make besides a thread.
const CLONE_KINDS: u32 = (libc::CLONE_THREAD
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

fn is(argument: u8, length: SeccompCmpArgLen, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u32, value: u32) -> Result<SeccompCondition, BackendError> {
    let operator = SeccompCmpOp::MaskedEq(mask.into());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Command;
    use std::thread;

    use super::*;
    use crate::leave_out::leave_out;

    #[test]
    fn nothing_is_both_allowed_and_deadly() {
        let allowed = allowed().unwrap();
        assert_eq!(allowed.len(), ALLOWED.len() + 8, "each is listed once");
        assert!(DEADLY.iter().all(|call| !allowed.contains_key(call)));
        assert!(allowed.keys().chain(DEADLY).all(|call| *call <= LAST_NEW));
    }

    /// In a thread of its own, because only that thread and its threads are confined.
    #[test]
    fn a_confined_thread_has_threads_and_memory_but_no_programs() {
        let confined = thread::spawn(|| {
            if let Err(lack) = confine() {
                return leave_out(&lack);
            }
            let sum = thread::Builder::new()
                .name("named".into())
                .spawn(|| vec![1_u8; 8 << 20].iter().map(|x| u64::from(*x)).sum::<u64>());
            assert_eq!(sum.unwrap().join().unwrap(), 8 << 20);
            let error = Command::new("/bin/true").spawn().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
        });
        confined.join().unwrap();
    }
}
