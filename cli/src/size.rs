//! Sizes as people write them.

/// A size of memory: the bytes, and how it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) text: String,
}

/// Takes `64M` and the like apart: a whole number with K, M, G or T for powers of 1024, or bytes.
pub(crate) fn parse(text: &str) -> Result<Size, String> {
    let (digits, shift) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 10),
        Some('m' | 'M') => (&text[..text.len() - 1], 20),
        Some('g' | 'G') => (&text[..text.len() - 1], 30),
        Some('t' | 'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| plain);
    let bytes = number.and_then(|n| n.checked_mul(1 << shift));
    match bytes {
        Some(bytes) => Ok(Size {
            bytes,
            text: text.to_owned(),
        }),
        None => {
            Err("give a whole number of bytes, or one with K, M, G or T, such as 64M".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_understood_or_refused() {
        let bytes = |t| parse(t).map(|s| s.bytes).ok();
        assert_eq!(bytes("64M"), Some(64 << 20));
        assert_eq!(bytes("1k"), Some(1024));
        assert_eq!(bytes("2G"), Some(2 << 30));
        assert_eq!(bytes("1T"), Some(1 << 40));
        assert_eq!(bytes("4096"), Some(4096));
        for bad in [
            "",
            "M",
            "-1M",
            "+1M",
            "1.5G",
            "1P",
            "99999999999G",
            "1 M",
            "é",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
