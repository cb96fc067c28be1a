//! A small kernel for x86-64 that runs Linux programs on bsdvm, under QEMU.
//!
//! # Boot
//! `boot.S` comes from the firmware (PVH), maps the first GiB and calls [`kernel_main`], which sets
//! up, in this order: [`serial`], [`segments`], [`traps`], [`memory`] with the direct map of
//! [`layout`], [`apic`] and [`clock`], the VM and the [`heap`] on it, [`fpu`], [`threads`]. Nothing
//! allocates before the heap is there, and the VM below it never does.
//!
//! # The machine below the core
//! [`machine`] with [`memory`], [`hardware`] (page tables), [`locks`] and [`threads`] (waiting).
//!
//! # The world below the personality
//! [`guest`] runs a program's thread until it traps ([`frame`], `traps.S`); [`platform`] is the
//! rest: [`files`] by 9P ([`ninep`]) from the host, and what the runner on the host lends over
//! the [`link`]; both on [`virtio`].
//!
//! # What it runs
//! [`run`]: a program that the runner names; or, with `test` on the command line, [`tests`].
//!
//! # What is absent
//! More than one processor, interrupts while the kernel runs, devices other than a serial port, a
//! virtio one and a 9P server, page-out to a disk.

#![no_std]
#![no_main]

extern crate alloc;

mod apic;
mod clock;
mod dma;
mod exit;
mod files;
mod fpu;
mod frame;
mod guest;
mod hardware;
mod heap;
mod layout;
mod link;
mod locks;
mod machine;
mod memory;
mod ninep;
mod platform;
mod port;
mod run;
mod segments;
mod serial;
mod stack;
mod start_info;
mod tests;
mod threads;
mod traps;
mod virtio;

core::arch::global_asm!(include_str!("boot.S"));

/// What `boot.S` calls, with the physical address of the start information.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start: u64) -> ! {
    serial::init();
    segments::init();
    traps::init();
    let start = start_info::Start::at(start);
    let command_line = start.command_line();
    // SAFETY: entries of the page tables mean what their types say from now on.
    unsafe { x86_64::registers::model_specific::Msr::new(0x277).write(bsdvm_x86_64::entry::PAT) };
    memory::init(&start);
    apic::init();
    clock::init();
    machine::seed(clock::now());
    let command_line = start_info::command_line(command_line);
    heap::init(run::frames(command_line));
    fpu::init();
    threads::init();
    apic::start();
    run::run(command_line)
}
