//! Rust text without what only looks like code.

/// `text` with comments and the insides of literals blanked, so that what is left is code; lines
/// keep their numbers.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end == at {
            // Outside of literals and comments only ASCII matters here.
            out.push(if bytes[at].is_ascii() {
                bytes[at] as char
            } else {
                ' '
            });
            at += 1;
            continue;
        }
        let blank = |b: &u8| if *b == b'\n' { '\n' } else { ' ' };
        out.extend(bytes[at..end].iter().map(blank));
        at = end;
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself when none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_name = at > 0 && is_name(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => find(bytes, at, b"\n"),
        [b'/', b'*', ..] => block_comment(bytes, at),
        [b'"', ..] => string(bytes, at + 1),
        [b'r', b'"' | b'#', ..] if !after_name => raw_string(bytes, at),
        [b'\'', b'\\', ..] => find(bytes, at + 3, b"'") + 1,
        [b'\'', c, b'\'', ..] if c.is_ascii() => at + 3,
        _ => at,
    }
    .min(bytes.len())
}

/// Whether `b` may be part of a name.
pub(crate) fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.windows(what.len()).position(|w| w == what);
    found.map_or(bytes.len(), |i| from + i)
}

fn block_comment(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < bytes.len() {
        match &bytes[i..] {
            [b'/', b'*', ..] => (depth, i) = (depth + 1, i + 2),
            [b'*', b'/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// The end of the string whose inside begins at `from`.
fn string(bytes: &[u8], from: usize) -> usize {
    let mut i = from;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    i
}

/// The end of the raw string at `at`; `at` itself for a raw name such as `r#type`.
fn raw_string(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    let quote = at + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return at;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    find(bytes, quote + 1, &end) + end.len()
}

/// The numbers of the lines, from 1, in which `word` stands alone in the code of `text`.
pub(crate) fn lines_with(text: &str, word: &str) -> Vec<usize> {
    let code = code(text);
    let whole = |line: &str| {
        line.match_indices(word).any(|(i, _)| {
            let before = i.checked_sub(1).map(|i| line.as_bytes()[i]);
            let after = line.as_bytes().get(i + word.len());
            let starts =
                !is_name(word.as_bytes()[0]) || before.is_none_or(|b| !is_name(b) && b != b'\'');
            let ends = !word.ends_with(|c: char| c.is_ascii_alphanumeric())
                || after.is_none_or(|b| !is_name(*b));
            starts && ends
        })
    };
    let numbered = code.lines().zip(1..);
    numbered
        .filter(|(line, _)| whole(line))
        .map(|(_, n)| n)
        .collect()
}
