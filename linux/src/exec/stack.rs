//! The first stack of a program: strings, the auxiliary vector, the environment, the arguments.

use super::ExecRequest;
use crate::errno::Errno;
use alloc::vec::Vec;
use linux_raw_sys::auxvec as av;

/// The bytes from the first stack pointer up to the top of the stack.
#[derive(Debug)]
pub(super) struct StackImage {
    pub(super) sp: u64,
    pub(super) bytes: Vec<u8>,
    /// Where the argument strings lie.
    pub(super) args: (u64, u64),
    /// Where those of the environment lie.
    pub(super) env: (u64, u64),
    /// The auxiliary vector as bytes.
    pub(super) auxv: Vec<u8>,
}

/// Strings as they lie below the top of the stack.
struct Strings {
    start: u64,
    bytes: Vec<u8>,
}

impl Strings {
    fn address(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn push(&mut self, text: &[u8]) -> u64 {
        let at = self.address();
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        at
    }
}

fn strings_size(request: &ExecRequest) -> usize {
    let lists = request.args.iter().chain(&request.env);
    lists.map(|s| s.len() + 1).sum::<usize>() + request.path.len() + 1
}

impl StackImage {
    /// Lays the stack out below `top`. `E2BIG`: it would not fit below it at all.
    pub(super) fn build(
        top: u64,
        request: &ExecRequest,
        auxv: &[(u32, u64)],
        random: &[u8; 16],
    ) -> Result<StackImage, Errno> {
        const PLATFORM: &[u8] = b"x86_64";
        // Above the strings, the last word of the stack stays zero, as on Linux.
        let size = strings_size(request) + PLATFORM.len() + 1 + random.len() + 8;
        let start = top.checked_sub(size as u64).ok_or(Errno::E2BIG)? & !15;
        let mut strings = Strings {
            start,
            bytes: Vec::new(),
        };
        strings.bytes.extend_from_slice(random);
        let platform = strings.push(PLATFORM);
        let args_start = strings.address();
        let args: Vec<u64> = request.args.iter().map(|a| strings.push(a)).collect();
        let args_end = strings.address();
        let env: Vec<u64> = request.env.iter().map(|e| strings.push(e)).collect();
        let env_end = strings.address();
        let name = strings.push(&request.path);
        strings.bytes.resize((top - start) as usize, 0);

        let own = [
            (av::AT_RANDOM, start),
            (av::AT_PLATFORM, platform),
            (av::AT_EXECFN, name),
        ];
        let end = [(av::AT_NULL, 0)];
        let pairs = auxv.iter().chain(&own).chain(&end);
        let auxv: Vec<u64> = pairs.flat_map(|&(k, v)| [u64::from(k), v]).collect();
        let mut words = alloc::vec![args.len() as u64];
        words.extend(&args);
        words.push(0);
        words.extend(&env);
        words.push(0);
        words.extend(&auxv);
        let sp = start
            .checked_sub(words.len() as u64 * 8)
            .ok_or(Errno::E2BIG)?
            & !15;
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize((start - sp) as usize, 0);
        bytes.extend_from_slice(&strings.bytes);
        let auxv = auxv.iter().flat_map(|w| w.to_le_bytes()).collect();
        Ok(StackImage {
            sp,
            bytes,
            args: (args_start, args_end),
            env: (args_end, env_end),
            auxv,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn word(image: &StackImage, i: usize) -> u64 {
        u64::from_le_bytes(image.bytes[i * 8..i * 8 + 8].try_into().unwrap())
    }

    fn text(image: &StackImage, at: u64) -> &[u8] {
        let from = (at - image.sp) as usize;
        image.bytes[from..].split(|&b| b == 0).next().unwrap()
    }

    #[test]
    fn a_program_finds_its_arguments_environment_and_auxiliary_vector() {
        let top = 0x7fff_0000;
        for extra in 0..16 {
            let request = ExecRequest {
                path: b"/bin/echo".to_vec(),
                args: vec![b"echo".to_vec(), vec![b'x'; extra]],
                env: vec![b"A=1".to_vec(), b"B=2".to_vec()],
                ..ExecRequest::default()
            };
            let image = StackImage::build(top, &request, &[(6, 4096)], &[7; 16]).unwrap();
            assert_eq!(image.sp % 16, 0);
            assert_eq!(image.sp + image.bytes.len() as u64, top);
            assert_eq!(word(&image, 0), 2);
            assert_eq!(text(&image, word(&image, 1)), b"echo");
            assert_eq!(text(&image, word(&image, 2)).len(), extra);
            assert_eq!(word(&image, 3), 0);
            assert_eq!(text(&image, word(&image, 4)), b"A=1");
            assert_eq!(text(&image, word(&image, 5)), b"B=2");
            assert_eq!(word(&image, 6), 0);
            assert_eq!((word(&image, 7), word(&image, 8)), (6, 4096));
            let random = (word(&image, 10) - image.sp) as usize;
            assert_eq!(&image.bytes[random..random + 16], &[7; 16]);
            let args = image.args.0 - image.sp..image.args.1 - image.sp;
            let args = &image.bytes[args.start as usize..args.end as usize];
            assert_eq!(&args[..5], b"echo\0");
        }
    }

    #[test]
    fn a_stack_that_does_not_fit_is_refused() {
        let request = ExecRequest {
            args: vec![vec![b'x'; 5000]],
            ..ExecRequest::default()
        };
        assert_eq!(
            StackImage::build(4096, &request, &[], &[0; 16]).unwrap_err(),
            Errno::E2BIG
        );
    }
}
