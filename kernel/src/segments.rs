//! Segments and the task state segment: what 64-bit mode left of them.
//!
//! The selectors of user mode are those of Linux, since programs see them in signal frames.

use crate::frame::Frame;
use core::cell::UnsafeCell;
use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::structures::gdt::{
    Descriptor, DescriptorFlags, GlobalDescriptorTable, SegmentSelector,
};
use x86_64::structures::tss::TaskStateSegment;

/// The kernel's code.
pub(crate) const KERNEL_CODE: u16 = 0x10;
/// The kernel's data.
pub(crate) const KERNEL_DATA: u16 = 0x18;
/// A program's 32-bit code, which no program of ours runs in; `sysret` counts from it.
pub(crate) const USER_BASE: u16 = 0x23;
/// A program's data.
pub(crate) const USER_DATA: u16 = 0x2b;
/// A program's code.
pub(crate) const USER_CODE: u16 = 0x33;

/// The stack that double faults and machine checks run on, by its place in the table.
pub(crate) const DOUBLE_FAULT_STACK: u16 = 0;

#[repr(align(16))]
struct Stack(#[allow(dead_code, reason = "the processor uses it")] UnsafeCell<[u8; 16 << 10]>);

// SAFETY: only the processor uses it.
unsafe impl Sync for Stack {}

struct Tables {
    segments: UnsafeCell<GlobalDescriptorTable<10>>,
    task: UnsafeCell<TaskStateSegment>,
}

// SAFETY: changed only while the only processor boots, and by `set_frame`.
unsafe impl Sync for Tables {}

static STACK: Stack = Stack(UnsafeCell::new([0; 16 << 10]));

static TABLES: Tables = Tables {
    segments: UnsafeCell::new(GlobalDescriptorTable::empty()),
    task: UnsafeCell::new(TaskStateSegment::new()),
};

/// Builds and loads the tables.
pub(crate) fn init() {
    // SAFETY: nobody else runs yet, and from now on only the processor reads the segments.
    let (segments, task) = unsafe { (&mut *TABLES.segments.get(), &mut *TABLES.task.get()) };
    let top = STACK.0.get().addr() + (16 << 10);
    task.interrupt_stack_table[usize::from(DOUBLE_FAULT_STACK)] = VirtAddr::new(top as u64);
    let user32 = DescriptorFlags::USER_CODE32.bits();
    let descriptors = [
        Descriptor::UserSegment(DescriptorFlags::KERNEL_CODE32.bits()),
        Descriptor::kernel_code_segment(),
        Descriptor::kernel_data_segment(),
        Descriptor::UserSegment(user32),
        Descriptor::user_data_segment(),
        Descriptor::user_code_segment(),
    ];
    for descriptor in descriptors {
        segments.append(descriptor);
    }
    // SAFETY: the segment is a static.
    let task = segments.append(unsafe { Descriptor::tss_segment_unchecked(TABLES.task.get()) });
    // SAFETY: the table is a static, and the selectors name what was put there.
    unsafe {
        segments.load_unsafe();
        CS::set_reg(SegmentSelector(KERNEL_CODE));
        SS::set_reg(SegmentSelector(KERNEL_DATA));
        DS::set_reg(SegmentSelector(0));
        ES::set_reg(SegmentSelector(0));
        load_tss(task);
    }
}

/// From now on traps from user mode go to `frame`.
pub(crate) fn set_frame(frame: &mut Frame) {
    let end = core::ptr::from_mut(frame).expose_provenance() as u64 + Frame::TRAP_END;
    // SAFETY: with interrupts off nobody reads the word while it changes.
    unsafe { (*TABLES.task.get()).privilege_stack_table[0] = VirtAddr::new(end) };
}
