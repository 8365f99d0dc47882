//! Logs in UTF-16: what `>` of Windows PowerShell writes.

use std::io::{self, BufRead, Read};

/// Order of the two bytes of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

/// Bytes that are looked at where there is no mark at the start.
const LOOK: usize = 512;
/// Units that are decoded at once.
const UNITS: usize = 32 << 10;

/// Whether a text that begins so is UTF-16: by its mark, or because every second byte is 0 in nearly
/// all places, as it is where most letters are ASCII.
pub(super) fn order(head: &[u8]) -> Option<Order> {
    match head {
        [0xff, 0xfe, ..] => return Some(Order::Little),
        [0xfe, 0xff, ..] => return Some(Order::Big),
        _ => {}
    }
    let pairs = head[..head.len().min(LOOK)].as_chunks::<2>().0;
    let count = |is: fn(&[u8; 2]) -> bool| pairs.iter().filter(|pair| is(pair)).count();
    let least = pairs.len() - pairs.len() / 8;
    let is_little = |[low, high]: &[u8; 2]| *low != 0 && *high == 0;
    let is_big = |[high, low]: &[u8; 2]| *low != 0 && *high == 0;
    // The first letter tells, so that a text in 8 bits with UTF-16 appended to it is none.
    let first = pairs.first()?;
    match () {
        () if pairs.len() < 4 => None,
        () if is_little(first) && count(is_little) >= least => Some(Order::Little),
        () if is_big(first) && count(is_big) >= least => Some(Order::Big),
        () => None,
    }
}

/// A text in UTF-16 as UTF-8. What is no letter becomes U+FFFD; half a unit at the end is left out.
pub(super) struct Utf16<'a> {
    inner: &'a mut dyn BufRead,
    order: Order,
    raw: Vec<u8>,
    /// The first half of a letter of two units, where its second half is not read yet.
    half: Option<u16>,
    text: String,
    at: usize,
}

impl<'a> Utf16<'a> {
    pub(super) fn new(inner: &'a mut dyn BufRead, order: Order) -> Self {
        Self { inner, order, raw: Vec::new(), half: None, text: String::new(), at: 0 }
    }

    fn decode(&mut self) -> io::Result<()> {
        (self.at, self.raw) = (0, Vec::with_capacity(2 * UNITS));
        self.text.clear();
        let read = Read::take(&mut *self.inner, 2 * UNITS as u64).read_to_end(&mut self.raw)?;
        let is_end = read < 2 * UNITS;
        let unit = match self.order {
            Order::Little => u16::from_le_bytes,
            Order::Big => u16::from_be_bytes,
        };
        let mut units: Vec<u16> = self.half.take().into_iter().collect();
        units.extend(self.raw.as_chunks::<2>().0.iter().map(|pair| unit(*pair)));
        if !is_end && units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
            self.half = units.pop();
        }
        let letters = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
        self.text.extend(letters);
        Ok(())
    }
}

impl Read for Utf16<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Utf16<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.text.len() {
            self.decode()?;
        }
        Ok(&self.text.as_bytes()[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> String {
        let mut inner = bytes;
        let order = order(bytes).unwrap();
        let mut text = String::new();
        Utf16::new(&mut inner, order).read_to_string(&mut text).unwrap();
        text
    }

    fn bytes(text: &str, of: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(of).collect()
    }

    #[test]
    fn both_orders_are_read_with_and_without_a_mark() {
        let text = "Schritt 1 größer\r\n🔥 CUDA out of memory\r\n";
        for of in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(read(&bytes(text, of)), text);
            assert_eq!(read(&bytes(&format!("\u{feff}{text}"), of)), format!("\u{feff}{text}"));
        }
        assert_eq!(order(text.as_bytes()), None);
        assert_eq!(order(b"\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(order(b""), None);
    }

    #[test]
    fn a_letter_of_two_units_may_lie_on_the_border_of_what_is_decoded_at_once() {
        let text = format!("{}🔥{}", "a".repeat(UNITS - 1), "b".repeat(100));
        assert_eq!(read(&bytes(&text, u16::to_le_bytes)), text);
    }

    #[test]
    fn what_is_no_letter_and_half_a_unit_do_no_harm() {
        let mut cut = bytes("CUDA out of memory", u16::to_le_bytes);
        cut.extend([0x00, 0xd8, b'!', 0, b'x']);
        assert_eq!(read(&cut), "CUDA out of memory\u{fffd}!");
    }
}
