// Into user mode and back. A program's registers are kept in a frame, in the order of
// `frame::Frame`; the processor pushes its part of them there by itself, as the task state segment
// names the end of the frame as the stack for ring 0.

.section .text.traps, "ax", @progbits

.macro push_registers
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
.endm

.macro pop_registers
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
.endm

.macro push_kept
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
.endm

.macro pop_kept
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
.endm

// enter_user(frame): runs a program from its frame; returns when it traps.
.globl enter_user
enter_user:
    push_kept
    mov [rdi + 176], rsp
    mov [rip + current_frame], rdi
    mov rsp, rdi
    pop_registers
    add rsp, 16                 // vector and error
    iretq

// From user mode, with all registers pushed: back to whoever called enter_user.
leave_user:
    mov rax, rsp
    mov rsp, [rax + 176]
    pop_kept
    cld
    ret

// The `syscall` instruction: rcx is the address after it, r11 the flags.
.globl syscall_entry
syscall_entry:
    mov [rip + user_stack], rsp
    mov rsp, [rip + current_frame]
    add rsp, 176
    push 0x2b
    push qword ptr [rip + user_stack]
    push r11
    push 0x33
    push rcx
    push 0
    push 256
    push_registers
    jmp leave_user

trap:
    test byte ptr [rsp + 24], 3 // where it came from
    jz trap_from_kernel
    push_registers
    jmp leave_user

trap_from_kernel:
    push_registers
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    cld
    call kernel_trap
    mov rsp, rbp
    pop_registers
    add rsp, 16
    iretq

// One entry of 16 bytes for each vector. Some exceptions bring an error code.
.balign 16
.globl trap_entries
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector == 10) || (vector == 11) || (vector == 12) || (vector == 13) || (vector == 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    push vector
    jmp trap
    .set vector, vector + 1
    .endr

// switch_stacks(from, to): keeps this stack's pointer at `from` and goes on on the stack `to`.
.globl switch_stacks
switch_stacks:
    push_kept
    mov [rdi], rsp
    mov rsp, rsi
    pop_kept
    ret

// Accesses that may fault: probe_load(address), probe_store(address, byte), probe_call(address)
// give back 0 (or the byte); -1 when they fault, as the trap handler then goes on at
// probe_failed. The stack is as it was at the call, except in a call that faults at once, where
// the return address lies on it still: rdx holds the stack pointer.
.globl probe_begin
.globl probe_end
.globl probe_failed
.globl probe_load
.globl probe_store
.globl probe_call
probe_begin:
probe_load:
    mov rdx, rsp
    movzx eax, byte ptr [rdi]
    ret
probe_store:
    mov rdx, rsp
    mov byte ptr [rdi], sil
    xor eax, eax
    ret
probe_call:
    mov rdx, rsp
    call rdi
    xor eax, eax
    ret
probe_end:
probe_failed:
    mov rsp, rdx
    mov rax, -1
    ret

.section .bss.traps, "aw", @nobits
.balign 8
current_frame:
    .skip 8
user_stack:
    .skip 8
