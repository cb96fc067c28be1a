//! Addresses, frames, ranges and page sizes: the only address arithmetic in the project.
//!
//! Every operation on a number that may come from outside is checked and answers `None` where it
//! would wrap.

use core::fmt;

/// A virtual address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct VirtAddr(pub u64);

impl VirtAddr {
    /// The address `bytes` above this one, or `None` where the sum would wrap.
    pub const fn checked_add(self, bytes: u64) -> Option<VirtAddr> {
        match self.0.checked_add(bytes) {
            Some(a) => Some(VirtAddr(a)),
            None => None,
        }
    }

    /// The address `bytes` below this one, or `None` where the difference would wrap.
    pub const fn checked_sub(self, bytes: u64) -> Option<VirtAddr> {
        match self.0.checked_sub(bytes) {
            Some(a) => Some(VirtAddr(a)),
            None => None,
        }
    }

    /// The number of bytes from `lower` up to this address; 0 when `lower` is above it.
    pub const fn bytes_above(self, lower: VirtAddr) -> u64 {
        self.0.saturating_sub(lower.0)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::LowerHex for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// A half-open range of virtual addresses, `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VirtRange {
    start: VirtAddr,
    end: VirtAddr,
}

impl VirtRange {
    /// The range `[start, end)`, or `None` when `end < start`.
    pub const fn new(start: VirtAddr, end: VirtAddr) -> Option<VirtRange> {
        if end.0 < start.0 {
            None
        } else {
            Some(VirtRange { start, end })
        }
    }

    /// The range of `bytes` bytes from `start`, or `None` where its end would wrap.
    pub const fn from_len(start: VirtAddr, bytes: u64) -> Option<VirtRange> {
        match start.checked_add(bytes) {
            Some(end) => Some(VirtRange { start, end }),
            None => None,
        }
    }

    /// The first address.
    pub const fn start(self) -> VirtAddr {
        self.start
    }

    /// The address after the last one.
    pub const fn end(self) -> VirtAddr {
        self.end
    }

    /// The length in bytes.
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether the range holds no address.
    pub const fn is_empty(self) -> bool {
        self.end.0 == self.start.0
    }

    /// Whether `va` lies in the range.
    pub const fn contains(self, va: VirtAddr) -> bool {
        self.start.0 <= va.0 && va.0 < self.end.0
    }

    /// Whether all of `other` lies in the range. An empty range lies in any range that reaches it.
    pub const fn contains_range(self, other: VirtRange) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Whether the two share an address.
    pub const fn overlaps(self, other: VirtRange) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// The addresses that both hold; an empty range at the nearer bound when there are none.
    pub fn intersect(self, other: VirtRange) -> VirtRange {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end).max(start);
        VirtRange { start, end }
    }
}

impl fmt::Debug for VirtRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

/// A physical frame by number: its physical address divided by the page size.
///
/// 32 bits reach 16 TiB with 4 KiB pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Frame(pub u32);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

/// `count` physically adjacent frames from `first`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRun {
    /// The first frame.
    pub first: Frame,
    /// The number of frames.
    pub count: u32,
}

impl FrameRun {
    /// The run of one frame.
    pub const fn one(frame: Frame) -> FrameRun {
        FrameRun {
            first: frame,
            count: 1,
        }
    }

    /// The frame `i` places after the first, or `None` past the end of the run.
    pub const fn get(self, i: u32) -> Option<Frame> {
        if i < self.count {
            Some(Frame(self.first.0 + i))
        } else {
            None
        }
    }

    /// The frames in ascending order.
    pub fn frames(self) -> impl DoubleEndedIterator<Item = Frame> + Clone {
        (self.first.0..self.first.0 + self.count).map(Frame)
    }

    /// Whether `frame` is one of the run.
    pub const fn contains(self, frame: Frame) -> bool {
        frame.0 >= self.first.0 && frame.0 - self.first.0 < self.count
    }
}

impl fmt::Debug for FrameRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}+{}", self.first.0, self.count)
    }
}

/// The size of a page: a power of two, at least 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageSize {
    shift: u32,
}

impl PageSize {
    /// 4 KiB.
    pub const KIB4: PageSize = PageSize { shift: 12 };
    /// 16 KiB.
    pub const KIB16: PageSize = PageSize { shift: 14 };
    /// 64 KiB.
    pub const KIB64: PageSize = PageSize { shift: 16 };

    /// The binary logarithm of the size.
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// The size in bytes, as an index into memory.
    #[allow(clippy::len_without_is_empty, reason = "a page is never empty")]
    pub const fn len(self) -> usize {
        1 << self.shift
    }

    /// The page that holds byte `offset`: the offset divided by the page size, rounded down.
    pub const fn index(self, offset: u64) -> u64 {
        offset >> self.shift
    }

    /// The first byte of page `index`, or `None` when it lies past 2^64.
    pub const fn offset(self, index: u64) -> Option<u64> {
        if index >> (64 - self.shift) != 0 {
            None
        } else {
            Some(index << self.shift)
        }
    }

    /// The byte within its page.
    pub const fn within(self, offset: u64) -> usize {
        (offset & (self.bytes() - 1)) as usize
    }

    /// The number of whole pages that hold `bytes` bytes: rounded up.
    pub const fn count(self, bytes: u64) -> u64 {
        (bytes >> self.shift) + (bytes & (self.bytes() - 1) != 0) as u64
    }

    /// `bytes` rounded up to whole pages, or `None` where that would wrap.
    pub const fn round_up(self, bytes: u64) -> Option<u64> {
        self.offset(self.count(bytes))
    }

    /// `va` rounded down to the start of its page.
    pub const fn floor(self, va: VirtAddr) -> VirtAddr {
        VirtAddr(va.0 & !(self.bytes() - 1))
    }

    /// `va` rounded up to the start of a page, or `None` where that would wrap.
    pub const fn ceil(self, va: VirtAddr) -> Option<VirtAddr> {
        match self.round_up(va.0) {
            Some(a) => Some(VirtAddr(a)),
            None => None,
        }
    }

    /// Whether `va` is the start of a page.
    pub const fn is_aligned(self, va: VirtAddr) -> bool {
        self.within(va.0) == 0
    }

    /// Whether both ends of `range` are starts of pages.
    pub const fn is_aligned_range(self, range: VirtRange) -> bool {
        self.is_aligned(range.start) && self.is_aligned(range.end)
    }

    /// The smallest range of whole pages that holds `range`, or `None` where its end would wrap.
    pub const fn outward(self, range: VirtRange) -> Option<VirtRange> {
        match self.ceil(range.end) {
            Some(end) => VirtRange::new(self.floor(range.start), end),
            None => None,
        }
    }

    /// The addresses of the pages of `range`, in ascending order.
    pub fn pages(self, range: VirtRange) -> impl DoubleEndedIterator<Item = VirtAddr> + Clone {
        let first = self.index(range.start.0);
        let last = self.index(range.end.0) + (self.within(range.end.0) != 0) as u64;
        let shift = self.shift;
        (first..last).map(move |i| VirtAddr(i << shift))
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}K", self.bytes() >> 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_refuses_to_wrap() {
        let p = PageSize::KIB4;
        assert_eq!(p.round_up(1), Some(4096));
        assert_eq!(p.round_up(4096), Some(4096));
        assert_eq!(p.round_up(u64::MAX), None);
        assert_eq!(
            p.ceil(VirtAddr(u64::MAX - 4095)),
            Some(VirtAddr(u64::MAX - 4095))
        );
        assert_eq!(p.ceil(VirtAddr(u64::MAX - 4094)), None);
        assert_eq!(p.offset(1 << 52), None);
        assert_eq!(p.count(u64::MAX), 1 << 52);
        assert_eq!(p.count(0), 0);
    }

    #[test]
    fn ranges_refuse_to_run_backwards() {
        assert!(VirtRange::new(VirtAddr(2), VirtAddr(1)).is_none());
        assert!(VirtRange::from_len(VirtAddr(u64::MAX), 1).is_none());
        let a = VirtRange::new(VirtAddr(0x1000), VirtAddr(0x3000)).unwrap();
        let b = VirtRange::new(VirtAddr(0x4000), VirtAddr(0x5000)).unwrap();
        assert!(!a.overlaps(b));
        assert!(a.intersect(b).is_empty());
        assert!(
            PageSize::KIB4
                .pages(a)
                .eq([VirtAddr(0x1000), VirtAddr(0x2000)])
        );
    }
}
