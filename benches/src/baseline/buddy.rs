//! Free frames as buddy lists alone: every frame is split off its run and joined with it again.

const ORDERS: usize = 16;
const NONE: u32 = u32::MAX;
const USED: u8 = u8::MAX;

/// Free frames.
pub struct Buddy {
    heads: [u32; ORDERS],
    links: Vec<(u32, u32)>,
    /// The order of the free run that starts here.
    orders: Vec<u8>,
}

impl Buddy {
    /// `frames` free frames.
    pub fn new(frames: u32) -> Buddy {
        let mut buddy = Buddy {
            heads: [NONE; ORDERS],
            links: vec![(NONE, NONE); frames as usize],
            orders: vec![USED; frames as usize],
        };
        for frame in (0..frames).rev() {
            buddy.free(frame);
        }
        buddy
    }

    /// One frame.
    pub fn alloc(&mut self) -> Option<u32> {
        let order = self.heads.iter().position(|&head| head != NONE)?;
        let frame = self.heads[order];
        self.unlink(frame, order);
        for half in (0..order).rev() {
            self.link(frame + (1 << half), half);
        }
        Some(frame)
    }

    /// Gives a frame back.
    pub fn free(&mut self, frame: u32) {
        let (mut first, mut order) = (frame, 0);
        while order + 1 < ORDERS {
            let other = first ^ (1 << order);
            if self.orders.get(other as usize) != Some(&(order as u8)) {
                break;
            }
            self.unlink(other, order);
            first &= !(1 << order);
            order += 1;
        }
        self.link(first, order);
    }

    fn link(&mut self, frame: u32, order: usize) {
        let head = self.heads[order];
        self.links[frame as usize] = (head, NONE);
        self.orders[frame as usize] = order as u8;
        if head != NONE {
            self.links[head as usize].1 = frame;
        }
        self.heads[order] = frame;
    }

    fn unlink(&mut self, frame: u32, order: usize) {
        let (next, prev) = self.links[frame as usize];
        if prev == NONE {
            self.heads[order] = next;
        } else {
            self.links[prev as usize].0 = next;
        }
        if next != NONE {
            self.links[next as usize].1 = prev;
        }
        self.orders[frame as usize] = USED;
    }
}
