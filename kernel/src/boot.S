// From the firmware to Rust. The entry of a PVH kernel: protected mode, 32 bits, no paging,
// ebx is the physical address of the start information.

.section .note.Xen, "a", @note
.balign 4
    .long 4                     // the name's length
    .long 8                     // the contents' length
    .long 18                    // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .boot, "awx", @progbits

// The first GiB of memory, where it is and at -2 GiB. The root stays in use as the kernel's.
.balign 4096
.globl boot_root
boot_root:
    .quad boot_pointers_low + 3
    .fill 510, 8, 0
    .quad boot_pointers_high + 3
boot_pointers_low:
    .quad boot_directory + 3
    .fill 511, 8, 0
boot_pointers_high:
    .fill 510, 8, 0
    .quad boot_directory + 3
    .quad 0
boot_directory:
    .set page, 0
    .rept 512
    .quad (page << 21) | 0x83   // present, writable, large
    .set page, page + 1
    .endr

.balign 8
boot_descriptors:
    .quad 0
    .quad 0x00af9b000000ffff    // code, 64 bits
    .quad 0x00cf93000000ffff    // data
boot_descriptors_end:
boot_descriptors_pointer:
    .short boot_descriptors_end - boot_descriptors - 1
    .long boot_descriptors

.code32
.globl pvh_entry
pvh_entry:
    cli
    cld
    mov esi, ebx
    mov eax, offset boot_root
    mov cr3, eax
    mov eax, cr4
    or eax, 0x6a0               // PAE, global pages, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080         // EFER: system calls, long mode, no-execute
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, cr0
    and eax, 0xfffffffb         // no emulation of the FPU
    or eax, 0x80010023          // paging, write protection, FPU errors, MP, PE
    mov cr0, eax
    lgdt [boot_descriptors_pointer]
    .byte 0xea                  // a far jump to 0x8:boot_long
    .long boot_long
    .short 0x8

.code64
boot_long:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov edi, esi
    movabs rsp, offset boot_stack_top
    xor ebp, ebp
    movabs rax, offset kernel_main
    call rax
    ud2

.section .bss.boot_stack, "aw", @nobits
.balign 4096
// A page that is unmapped once the tables allow it: who overflows the stack faults there.
.globl boot_stack_guard
boot_stack_guard:
    .skip 0x1000
    // 384 KiB: without optimisation, making the VM takes 240 of them.
    .skip 0x60000
boot_stack_top:
