//! A port of a virtio serial device: bytes in both directions, held back where the host is slow.
//!
//! A plain virtio console would lose what the host does not take at once, so this is a named port
//! of the multiport kind: device and driver agree about ports by control messages first.

use crate::virtio::{KernelMemory, Mmio};
use alloc::boxed::Box;
use alloc::vec::Vec;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::{Error, Result};

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Features: u64 {
        const MULTIPORT = 1 << 1;
        const VERSION_1 = 1 << 32;
    }
}

/// The port that carries the link: 0 is for consoles.
const PORT: u32 = 1;
/// The queues: from and to the host, for control messages and for the port.
const CONTROL_IN: u16 = 2;
const CONTROL_OUT: u16 = 3;
const DATA_IN: u16 = 4;
const DATA_OUT: u16 = 5;

/// Kinds of control messages.
const DEVICE_READY: u16 = 0;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

/// Buffers of a queue, and the bytes of each.
const BUFFERS: usize = 16;
const BYTES: usize = 4096;

type Queue = VirtQueue<KernelMemory, BUFFERS>;
type Buffer = Box<[u8; BYTES]>;

/// A queue from the host, with its buffers by token.
struct Incoming {
    queue: Queue,
    number: u16,
    buffers: [Option<Buffer>; BUFFERS],
}

impl Incoming {
    fn new(transport: &mut Mmio, number: u16) -> Result<Incoming> {
        Ok(Incoming {
            queue: VirtQueue::new(transport, number, false, false)?,
            number,
            buffers: [const { None }; BUFFERS],
        })
    }

    /// Lets the host fill a buffer.
    fn offer(&mut self, transport: &mut Mmio, mut buffer: Buffer) -> Result {
        // SAFETY: the buffer stays where it is, untouched, until its token comes back.
        let token = unsafe { self.queue.add(&[], &mut [buffer.as_mut_slice()])? };
        let place = self.buffers.get_mut(usize::from(token));
        *place.ok_or(Error::WrongToken)? = Some(buffer);
        if self.queue.should_notify() {
            transport.notify(self.number);
        }
        Ok(())
    }

    /// Offers as many buffers as there is room for.
    fn fill(&mut self, transport: &mut Mmio) -> Result {
        (0..BUFFERS).try_for_each(|_| self.offer(transport, Box::new([0; BYTES])))
    }

    /// Gives what the host has filled to `see`, in order.
    fn take(&mut self, transport: &mut Mmio, mut see: impl FnMut(&[u8])) -> Result {
        while let Some(token) = self.queue.peek_used() {
            let place = self.buffers.get_mut(usize::from(token));
            let mut buffer = place.and_then(Option::take).ok_or(Error::WrongToken)?;
            // SAFETY: it is the buffer that was added under this token.
            let len = unsafe {
                let outputs = &mut [buffer.as_mut_slice()];
                self.queue.pop_used(token, &[], outputs)?
            };
            see(buffer.get(..len as usize).ok_or(Error::IoError)?);
            self.offer(transport, buffer)?;
        }
        Ok(())
    }
}

/// An open port.
pub(crate) struct Port {
    transport: Mmio,
    control_in: Incoming,
    control_out: Queue,
    data_in: Incoming,
    data_out: Queue,
}

impl Port {
    /// Sets the device up and opens its port.
    ///
    /// Errors: the device is not what it should be.
    pub(crate) fn open(mut transport: Mmio) -> Result<Port> {
        let wanted = Features::MULTIPORT | Features::VERSION_1;
        let features: Features = transport.begin_init(wanted);
        if features != wanted {
            return Err(Error::Unsupported);
        }
        let mut port = Port {
            control_in: Incoming::new(&mut transport, CONTROL_IN)?,
            control_out: VirtQueue::new(&mut transport, CONTROL_OUT, false, false)?,
            data_in: Incoming::new(&mut transport, DATA_IN)?,
            data_out: VirtQueue::new(&mut transport, DATA_OUT, false, false)?,
            transport,
        };
        port.transport.finish_init();
        port.control_in.fill(&mut port.transport)?;
        port.data_in.fill(&mut port.transport)?;
        port.control(u32::MAX, DEVICE_READY)?;
        port.control(PORT, PORT_READY)?;
        port.control(PORT, PORT_OPEN)?;
        Ok(port)
    }

    /// Says "yes" to something about a port.
    fn control(&mut self, port: u32, event: u16) -> Result {
        let mut message = [0; 8];
        message[..4].copy_from_slice(&port.to_le_bytes());
        message[4..6].copy_from_slice(&event.to_le_bytes());
        message[6] = 1;
        let transport = &mut self.transport;
        self.control_out
            .add_notify_wait_pop(&[&message], &mut [], transport)?;
        Ok(())
    }

    /// Sends bytes; comes back when the host has taken them.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result {
        let transport = &mut self.transport;
        self.data_out
            .add_notify_wait_pop(&[bytes], &mut [], transport)?;
        Ok(())
    }

    /// What has come in since the last time; `None` when the host has closed its end.
    ///
    /// Errors: the device does what it should not.
    pub(crate) fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.data_in
            .take(&mut self.transport, |piece| bytes.extend_from_slice(piece))?;
        let mut closed = false;
        self.control_in.take(&mut self.transport, |message| {
            let [a, b, c, d, event, _, value, ..] = *message else {
                return;
            };
            let port = u32::from_le_bytes([a, b, c, d]);
            closed |= port == PORT && u16::from(event) == PORT_OPEN && value == 0;
        })?;
        Ok((!closed).then_some(bytes))
    }
}
