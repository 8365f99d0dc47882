//! PNG files of pixels that are there already.

use std::io::{self, Write};

use flate2::{Compression, Crc, write::ZlibEncoder};

/// The file of `width` × `height` pixels of three bytes each.
///
/// # Source
/// PNG specification (W3C, third edition), sections 5.3, 11.2 and 9.2: a row begins with its filter,
/// here 2 (difference to the row above).
pub(super) fn encode(pixels: &[u8], width: u32, height: u32) -> io::Result<Vec<u8>> {
    let row = width as usize * 3;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(7));
    let mut above = vec![0; row];
    let mut filtered = Vec::with_capacity(row + 1);
    for line in pixels.chunks_exact(row) {
        filtered.clear();
        filtered.push(2);
        filtered.extend(line.iter().zip(&above).map(|(now, above)| now.wrapping_sub(*above)));
        encoder.write_all(&filtered)?;
        above.copy_from_slice(line);
    }
    let mut head = Vec::new();
    head.extend(width.to_be_bytes());
    head.extend(height.to_be_bytes());
    // Eight bits a channel, red, green and blue, the only compression and filtering, no interlacing.
    head.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, *b"IHDR", &head)?;
    chunk(&mut file, *b"IDAT", &encoder.finish()?)?;
    chunk(&mut file, *b"IEND", &[])?;
    Ok(file)
}

fn chunk(file: &mut Vec<u8>, name: [u8; 4], data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut crc = Crc::new();
    crc.update(&name);
    crc.update(data);
    file.extend(length.to_be_bytes());
    file.extend(name);
    file.extend(data);
    file.extend(crc.sum().to_be_bytes());
    Ok(())
}
