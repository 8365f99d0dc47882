//! Events as JSON lines: `["alloc",105553116266496,3145728,0]`, then the pool if it is a private one.

use std::io::{self, Write};

use crate::trace::Events;

/// Writes one event a line: action, address (free bytes for `oom`), size, stream handle, and
/// `[a,b]` of a private pool.
///
/// # Errors
/// When `out` does.
pub fn write(events: &Events, out: &mut impl Write) -> io::Result<()> {
    for event in events.iter() {
        write!(out, "[\"{}\",{},{},{}", event.action, event.addr.0, event.size.0, event.stream.0)?;
        if event.pool.is_private() {
            write!(out, ",[{},{}]", event.pool.0, event.pool.1)?;
        }
        out.write_all(b"]\n")?;
    }
    Ok(())
}
