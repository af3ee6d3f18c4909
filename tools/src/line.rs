//! A line of output, written straight into a buffer that is used again: JSON for scripts, words for people.

use crate::show::Show;

/// How fields are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `"name":value`
    Json,
    /// ` name=value`, nothing for null, strings bare where they can be read back; what is nested is JSON.
    Words,
}

pub struct Line {
    bytes: Vec<u8>,
    style: Style,
    nested: u32,
    /// Nothing stands yet in what was opened last.
    first: bool,
}

impl Line {
    pub fn new(style: Style) -> Line {
        Line { bytes: Vec::new(), style, nested: 0, first: true }
    }

    pub fn style(&self) -> Style {
        self.style
    }

    /// What was written, and begin anew: to be read before anything else is written.
    pub fn begin(&mut self) {
        self.bytes.clear();
        (self.nested, self.first) = (0, true);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As it is.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn open(&mut self, bracket: u8) {
        self.bytes.push(bracket);
        self.nested += 1;
        self.first = true;
    }

    pub fn close(&mut self, bracket: u8) {
        self.bytes.push(bracket);
        self.nested -= 1;
        self.first = false;
    }

    /// Before each item of a list.
    pub fn item(&mut self) {
        if !self.first {
            self.bytes.push(b',');
        }
        self.first = false;
    }

    /// A name of ours: nothing in it needs an escape.
    pub fn key(&mut self, name: &str) {
        self.item();
        self.bytes.push(b'"');
        self.raw(name.as_bytes());
        self.raw(b"\":");
    }

    pub fn field<T: Show + ?Sized>(&mut self, name: &str, value: &T) {
        if self.style == Style::Words && self.nested == 0 {
            if value.is_null() {
                return;
            }
            self.bytes.push(b' ');
            self.raw(name.as_bytes());
            self.bytes.push(b'=');
        } else {
            self.key(name);
        }
        value.show(self);
    }

    pub fn number(&mut self, n: u64) {
        self.digits(n, 1);
    }

    /// At least `width` of them.
    pub fn digits(&mut self, n: u64, width: usize) {
        let (mut digits, mut at, mut rest) = ([b'0'; 20], 20, n);
        while rest > 0 {
            at -= 1;
            digits[at] = b"0123456789"[usize::from((rest % 10) as u8)];
            rest /= 10;
        }
        self.bytes.extend_from_slice(&digits[at.min(20 - width)..]);
    }

    pub fn hex(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for byte in bytes {
            self.bytes.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }

    /// Text that is known to need no escape, and to be bare: digits, letters, signs.
    pub fn plain(&mut self, write: impl FnOnce(&mut Line)) {
        let quoted = self.style == Style::Json || self.nested > 0;
        if quoted {
            self.bytes.push(b'"');
        }
        write(self);
        if quoted {
            self.bytes.push(b'"');
        }
    }

    pub fn string(&mut self, text: &str) {
        let bare = self.style == Style::Words && self.nested == 0;
        if bare && !text.is_empty() && !text.contains([' ', '"', '=']) {
            self.raw(text.as_bytes());
            return;
        }
        self.bytes.push(b'"');
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
            self.raw(&rest[..at]);
            match rest[at] {
                control @ 0..0x20 => {
                    self.raw(b"\\u00");
                    self.hex(&[control]);
                }
                escaped => self.raw(&[b'\\', escaped]),
            }
            rest = &rest[at + 1..];
        }
        self.raw(rest);
        self.bytes.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(write: impl FnOnce(&mut Line)) -> String {
        let mut line = Line::new(Style::Json);
        write(&mut line);
        String::from_utf8(line.bytes).unwrap()
    }

    #[test]
    fn a_string_is_read_back_by_a_json_reader_whatever_is_in_it() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        for text in [all.as_str(), "", "\"", "\\", "a\"b\\c\nd", "\u{10ffff}"] {
            let read: String = serde_json::from_str(&json(|line| line.string(text))).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for n in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(json(|line| line.number(n)), n.to_string());
        }
        assert_eq!(json(|line| line.digits(42, 9)), "000000042");
    }

    #[test]
    fn words_are_bare_where_they_can_be_read_back_and_nothing_stands_for_null() {
        let mut line = Line::new(Style::Words);
        line.field("a", &None::<u64>);
        line.field("b", &Some(7u64));
        line.field("c", &"plain".to_owned());
        line.field("d", &"two words".to_owned());
        line.field("e", &String::new());
        assert_eq!(line.bytes(), br#" b=7 c=plain d="two words" e="""#);
    }
}
