# The stub: all of our code that runs inside a guest's address space. No stack, no libc, no TLS.
#
# Registers in every part: r12 is the slot (the mailbox of this thread, at rsp rounded down).
# Labels are words: a label such as 10: reads as a binary number in Intel syntax.

.pushsection .rodata.bsdvm_hosted_stub, "a", @progbits
.balign 64
.globl bsdvm_hosted_stub_start
.hidden bsdvm_hosted_stub_start
.globl bsdvm_hosted_stub_end
.hidden bsdvm_hosted_stub_end

bsdvm_hosted_stub_start:
# Execution begins here, at the low address of the ELF file. File descriptors: 0 guest memory,
# 1 mailbox, 2 the ELF file itself. Map the code page at its place and go there.
    mov     eax, 9                          # mmap
    movabs  rdi, {CODE}
    mov     esi, 4096
    mov     edx, 5                          # read, execute
    mov     r10d, 0x12                      # private, fixed
    mov     r8d, 2
    mov     r9d, 4096
    syscall
    cmp     rax, rdi
    jne     .Lbsdvm_fail
    mov     eax, 9                          # mmap: the first slot
    movabs  rdi, {SLOT}
    mov     esi, {SLOT_BYTES}
    mov     edx, 3                          # read, write
    mov     r10d, 0x11                      # shared, fixed
    mov     r8d, 1
    xor     r9d, r9d
    syscall
    cmp     rax, rdi
    jne     .Lbsdvm_fail
    mov     r12, rdi
    lea     rax, [rip + .Lbsdvm_high]
    lea     rcx, [rip + bsdvm_hosted_stub_start]
    sub     rax, rcx
    movabs  rcx, {CODE}
    add     rax, rcx
    jmp     rax

.Lbsdvm_high:
    lea     rbx, [rip + .Lbsdvm_signals]
.Lbsdvm_next_signal:
    movzx   edi, byte ptr [rbx]
    test    edi, edi
    jz      .Lbsdvm_own_frame
    lea     rsi, [rip + .Lbsdvm_action]
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 13                         # rt_sigaction
    syscall
    test    rax, rax
    jnz     .Lbsdvm_fail
    inc     rbx
    jmp     .Lbsdvm_next_signal

# A new thread or process gets a real signal frame by signalling itself: rsp must lie outside the
# alternate stack, else the kernel goes on from rsp.
.Lbsdvm_own_frame:
    lea     rsp, [r12 + {SCRATCH}]
    lea     rdi, [r12 + {STACK}]
    xor     esi, esi
    mov     eax, 131                        # sigaltstack
    syscall
    test    rax, rax
    jnz     .Lbsdvm_fail
    mov     eax, 186                        # gettid
    syscall
    mov     edi, eax
    mov     esi, {KICK}
    mov     eax, 200                        # tkill: pending, all signals are blocked here
    syscall
    mov     edi, 2                          # SIG_SETMASK
    lea     rsi, [r12 + {EMPTY}]
    xor     edx, edx
    mov     r10d, 8
    mov     eax, 14                         # rt_sigprocmask: the signal arrives
    syscall
    ud2

.Lbsdvm_fail:
    mov     edi, eax
    neg     edi
    mov     eax, 231                        # exit_group
    syscall
    ud2

# Every signal comes here, on the alternate stack, with all signals blocked.
.Lbsdvm_handler:
    mov     r12, rsp
    and     r12, -{SLOT_BYTES}
    cmp     edi, 31                         # SIGSYS, by the filter, for a call of x86-64:
    jne     .Lbsdvm_trapped                 # one that we answer ourselves?
    cmp     dword ptr [rsi + 8], 1
    jne     .Lbsdvm_trapped
    cmp     dword ptr [rsi + 28], 0xc000003e
    jne     .Lbsdvm_trapped
    mov     eax, dword ptr [rsi + 24]
    lea     r14, [r12 + {ANSWERS}]
.Lbsdvm_next_answer:
    mov     ebx, dword ptr [r14 + 4]        # 0: end of the list, 1: a value, 2: ask the host
    test    ebx, ebx
    jz      .Lbsdvm_trapped
    cmp     eax, dword ptr [r14]
    je      .Lbsdvm_answer
    add     r14, 16
    jmp     .Lbsdvm_next_answer
.Lbsdvm_answer:
    cmp     ebx, 1
    je      .Lbsdvm_value
    syscall
    jmp     .Lbsdvm_answered
.Lbsdvm_value:
    mov     rax, qword ptr [r14 + 8]
.Lbsdvm_answered:
    mov     qword ptr [rdx + {UC_RAX}], rax
    jmp     .Lbsdvm_return

.Lbsdvm_trapped:
    mov     dword ptr [r12 + {SIGNO}], edi
    mov     qword ptr [r12 + {INFO}], rsi
    mov     qword ptr [r12 + {UCONTEXT}], rdx
    test    byte ptr [r12 + {FSGS}], 1
    jz      .Lbsdvm_announce
    rdfsbase rax
    mov     qword ptr [r12 + {FS}], rax
    rdgsbase rax
    mov     qword ptr [r12 + {GS}], rax
.Lbsdvm_announce:
    xor     eax, eax
    xchg    dword ptr [r12], eax
    cmp     dword ptr [r12 + {SLEEPS}], 0   # only then does the supervisor need a wake-up
    je      .Lbsdvm_pause
    mov     rdi, r12
    mov     esi, 1                          # FUTEX_WAKE; not PRIVATE, the supervisor is outside
    mov     edx, 1
    mov     eax, 202
    syscall
.Lbsdvm_pause:
    mov     ebx, dword ptr [r12 + {LOOKS}]  # a supervisor on another processor answers soon
.Lbsdvm_look:
    cmp     dword ptr [r12], 0
    jne     .Lbsdvm_command
    pause
    dec     ebx
    jns     .Lbsdvm_look
    mov     ebx, dword ptr [r12 + {YIELDS}]
.Lbsdvm_yield:
    cmp     dword ptr [r12], 0
    jne     .Lbsdvm_command
    test    ebx, ebx
    jz      .Lbsdvm_sleep
    mov     eax, 24                         # sched_yield
    syscall
    dec     ebx
    jmp     .Lbsdvm_yield
.Lbsdvm_sleep:
    mov     eax, 1
    xchg    dword ptr [r12 + {STUB_SLEEPS}], eax
    cmp     dword ptr [r12], 0
    jne     .Lbsdvm_awake
    mov     rdi, r12
    xor     esi, esi                        # FUTEX_WAIT
    xor     edx, edx
    xor     r10d, r10d
    mov     eax, 202
    syscall
.Lbsdvm_awake:
    mov     dword ptr [r12 + {STUB_SLEEPS}], 0
    cmp     dword ptr [r12], 0
    je      .Lbsdvm_sleep

# Carry out the orders, each a raw system call. A failure ends the batch and is reported.
.Lbsdvm_command:
    mov     r13d, dword ptr [r12 + {COUNT}]
    lea     r14, [r12 + {ORDERS}]
.Lbsdvm_next_order:
    test    r13d, r13d
    jz      .Lbsdvm_orders_done
    mov     rbx, qword ptr [r14]
    mov     rdi, qword ptr [r14 + 8]
    mov     rsi, qword ptr [r14 + 16]
    mov     rdx, qword ptr [r14 + 24]
    mov     r10, qword ptr [r14 + 32]
    mov     r8, qword ptr [r14 + 40]
    mov     r9, qword ptr [r14 + 48]
    mov     rax, rbx
    syscall
    cmp     rbx, 56                         # clone
    jne     .Lbsdvm_store
    test    rax, rax
    jz      .Lbsdvm_child
.Lbsdvm_store:
    mov     qword ptr [r14 + 56], rax
    cmp     rax, -4095
    jae     .Lbsdvm_stop
    add     r14, 64
    dec     r13d
    jmp     .Lbsdvm_next_order
.Lbsdvm_stop:
    mov     dword ptr [r12 + {COUNT}], r13d
    jmp     .Lbsdvm_announce
.Lbsdvm_orders_done:
    mov     dword ptr [r12 + {COUNT}], 0
    cmp     dword ptr [r12 + {RESUME}], 0
    je      .Lbsdvm_announce
    test    byte ptr [r12 + {FSGS}], 1
    jz      .Lbsdvm_return
    mov     rax, qword ptr [r12 + {FS}]
    wrfsbase rax
    mov     rax, qword ptr [r12 + {GS}]
    wrgsbase rax
.Lbsdvm_return:
    add     rsp, 8
    mov     eax, 15                         # rt_sigreturn
    syscall
    ud2

# The child of a clone order. A thread (CLONE_VM) has its slot's address in r9. A process has the
# file offset of its slot in r9 and the parent that it must have in r8; the slot of the parent is
# replaced by its own before anything is written.
.Lbsdvm_child:
    test    edi, 0x100
    jnz     .Lbsdvm_child_thread
    mov     r15d, r8d
    mov     rdi, r12
    mov     esi, {SLOT_BYTES}
    mov     edx, 3
    mov     r10d, 0x11
    mov     r8d, 1
    mov     eax, 9
    syscall
    cmp     rax, r12
    jne     .Lbsdvm_fail
    mov     edi, 1                          # PR_SET_PDEATHSIG
    mov     esi, 9
    xor     edx, edx
    xor     r10d, r10d
    xor     r8d, r8d
    mov     eax, 157
    syscall
    mov     eax, 110                        # getppid: did the parent end before that?
    syscall
    cmp     eax, r15d
    jne     .Lbsdvm_fail
    mov     eax, 112                        # setsid
    syscall
    jmp     .Lbsdvm_own_frame
.Lbsdvm_child_thread:
    mov     r12, r9
    jmp     .Lbsdvm_own_frame

.balign 8
.Lbsdvm_action:                             # struct sigaction of the kernel
    .quad   {CODE} + (.Lbsdvm_handler - bsdvm_hosted_stub_start)
    .quad   0x0c000004                      # SA_SIGINFO, SA_ONSTACK, SA_RESTORER
    .quad   {CODE} + (.Lbsdvm_return - bsdvm_hosted_stub_start)
    .quad   -1
.Lbsdvm_signals:                            # SYS SEGV BUS ILL FPE TRAP, and the kick
    .byte   31, 11, 7, 4, 8, 5, {KICK}, 0
                                            # For the conformance tests: a load, a store, each
                                            # ended by a trap.
.globl bsdvm_hosted_probe_load
.hidden bsdvm_hosted_probe_load
bsdvm_hosted_probe_load:
    mov     al, [rdi]
    int3
.globl bsdvm_hosted_probe_store
.hidden bsdvm_hosted_probe_store
bsdvm_hosted_probe_store:
    mov     [rdi], al
    int3
bsdvm_hosted_stub_end:
.popsection
