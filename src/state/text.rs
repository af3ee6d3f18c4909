//! Names as text: any bytes, escaped reversibly, always one line.
//!
//! Valid UTF-8 stays as it is; a backslash is doubled; a byte that is not part of valid UTF-8, and every control
//! character, becomes `\xNN`.

use std::fmt::Write;

/// `bytes` as text that [`unescape`] turns back.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                out.push_str("\\\\");
            } else if c.is_control() {
                let mut utf8 = [0; 4];
                c.encode_utf8(&mut utf8).bytes().for_each(|b| hex_escape(&mut out, b));
            } else {
                out.push(c);
            }
        }
        chunk.invalid().iter().for_each(|b| hex_escape(&mut out, *b));
    }
    out
}

fn hex_escape(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// The bytes that `text` stands for; `None` when a backslash is followed by neither a backslash nor `xNN`.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'\\' {
            out.push(*first);
            rest = tail;
            continue;
        }
        rest = match tail {
            [b'\\', tail @ ..] => {
                out.push(b'\\');
                tail
            }
            [b'x', high, low, tail @ ..] => {
                out.push(digit(*high)? << 4 | digit(*low)?);
                tail
            }
            _ => return None,
        };
    }
    Some(out)
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        b'A'..=b'F' => Some(hex - b'A' + 10),
        _ => None,
    }
}

/// Names from a root down as an absolute path, escaped.
pub fn path(names: &[Vec<u8>]) -> String {
    if names.is_empty() {
        return "/".into();
    }
    names.iter().fold(String::new(), |path, name| path + "/" + &escape(name))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The bytes of hexadecimal text.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes.chunks_exact(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_escaped_reversibly_and_stays_one_line() {
        for name in
            [&b"plain"[..], b"", b"a\\b", b"\\x41", b"\xff\xfe", b"new\nline\x7f", "grün\u{85}".as_bytes(), b"\xc3"]
        {
            let text = escape(name);
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert_eq!(unescape(&text).as_deref(), Some(name), "{text}");
        }
        assert_eq!(escape(b"a\\\xff"), "a\\\\\\xff");
        assert_eq!(escape("grün".as_bytes()), "grün");
    }

    #[test]
    fn text_with_half_an_escape_is_not_a_name() {
        for text in ["\\", "\\x", "\\x4", "\\n", "\\xg0"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }

    #[test]
    fn hexadecimal_comes_back_and_odd_text_does_not() {
        assert_eq!(unhex(&hex(&[0, 1, 0xab, 0xff])), Some(vec![0, 1, 0xab, 0xff]));
        assert_eq!(unhex("abc"), None);
        assert_eq!(unhex("zz"), None);
    }
}
