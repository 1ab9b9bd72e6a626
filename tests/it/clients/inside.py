"""Makes system calls inside a running process, as an attacker would who has taken it over: inside.py PID < CALLS

Each line of CALLS is a call: a JSON list of its number and its arguments. A text stands for the address of its bytes. Each
line of the output is a result, as the kernel returns it: an errno is negative. `killed N` is the last line if signal N killed
the process.

ptrace(2), on x86-64. The process sleeps in a system call; each call uses the instruction of that one.
"""

import ctypes
import json
import os
import struct
import sys
import time

ATTACH, DETACH, SINGLESTEP, GETREGS, SETREGS = 16, 17, 9, 12, 13
NAMES = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs gs ds es fs2 gs2".split()
ARGUMENTS = ["rdi", "rsi", "rdx", "r10", "r8", "r9"]
SYSCALL = b"\x0f\x05"

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, data=None):
    if libc.ptrace(request, pid, None, data) < 0:
        errno = ctypes.get_errno()
        sys.exit(f"ptrace: {os.strerror(errno)}")


def registers(pid):
    buffer = ctypes.create_string_buffer(8 * len(NAMES))
    ptrace(GETREGS, pid, ctypes.cast(buffer, ctypes.c_void_p))
    return dict(zip(NAMES, struct.unpack(f"{len(NAMES)}Q", buffer.raw)))


def set_registers(pid, values):
    packed = struct.pack(f"{len(NAMES)}Q", *(values[name] % 2**64 for name in NAMES))
    ptrace(SETREGS, pid, ctypes.cast(ctypes.create_string_buffer(packed), ctypes.c_void_p))


def attach(pid):
    """Stops the process in a system call, and returns its registers there."""
    while True:
        ptrace(ATTACH, pid)
        os.waitpid(pid, 0)
        found = registers(pid)
        with open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(found["rip"] - len(SYSCALL))
            if memory.read(len(SYSCALL)) == SYSCALL:
                return found
        ptrace(DETACH, pid)
        time.sleep(0.01)


def call(pid, before, number, arguments):
    values = dict(before, rax=number, orig_rax=-1, rip=before["rip"] - len(SYSCALL))
    # Below the red zone, and what the functions of the process may have there.
    free = before["rsp"] - 8192
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for register, argument in zip(ARGUMENTS, arguments):
            if isinstance(argument, str):
                content = argument.encode() + b"\0"
                free -= (len(content) + 15) // 16 * 16
                memory.seek(free)
                memory.write(content)
                argument = free
            values[register] = argument
    set_registers(pid, values)
    ptrace(SINGLESTEP, pid)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        print("killed", os.WTERMSIG(status))
        sys.exit()
    result = registers(pid)["rax"]
    print(result - 2**64 if result >= 2**63 else result, flush=True)


process = int(sys.argv[1])
calls = [json.loads(line) for line in sys.stdin]
stopped = attach(process)
for number, *arguments in calls:
    call(process, stopped, number, arguments)
set_registers(process, stopped)
ptrace(DETACH, process)
