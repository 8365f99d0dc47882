//! Rows of a sweep as CSV, JSON lines and Parquet.

use std::io::Write;

use clap::ValueEnum;

use crate::study::sweep::SweepRow;

/// The forms of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SweepFormat {
    /// Comma-separated values with a line of names.
    Csv,
    /// A JSON object a line.
    #[value(name = "jsonl", alias = "json")]
    JsonLines,
    /// Apache Parquet, packed with zstd.
    Parquet,
}

impl SweepFormat {
    /// The form that the name of a file asks for.
    pub(super) fn of(path: &std::path::Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "json" | "ndjson" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Writes all rows to a file.
pub(super) fn write<W: Write + Send>(
    format: SweepFormat,
    rows: &mut dyn Iterator<Item = anyhow::Result<SweepRow>>,
    out: W,
) -> anyhow::Result<()> {
    match format {
        SweepFormat::Csv => {
            let mut writer = csv::Writer::from_writer(std::io::BufWriter::new(out));
            let mut is_empty = true;
            for row in rows {
                writer.serialize(row?)?;
                is_empty = false;
            }
            if is_empty {
                writer.write_record(NAMES)?;
            }
            writer.flush()?;
        }
        SweepFormat::JsonLines => {
            let mut out = std::io::BufWriter::new(out);
            for row in rows {
                serde_json::to_writer(&mut out, &row?).map_err(std::io::Error::from)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
        #[cfg(feature = "parquet")]
        SweepFormat::Parquet => super::parquet::write(rows, out)?,
        #[cfg(not(feature = "parquet"))]
        SweepFormat::Parquet => {
            anyhow::bail!("this build writes no Parquet; build it with --features parquet")
        }
    }
    Ok(())
}

/// One row as a line of CSV; the names first, if wanted.
pub(super) fn csv_line(row: &SweepRow, with_names: bool) -> anyhow::Result<String> {
    let mut builder = csv::WriterBuilder::new();
    let mut writer = builder.has_headers(with_names).from_writer(Vec::new());
    writer.serialize(row)?;
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// The columns, in order.
pub(super) const NAMES: [&str; 21] = [
    "file",
    "device",
    "torch",
    "conf",
    "capacity_bytes",
    "survives",
    "died_at_op",
    "died_requested_bytes",
    "ops",
    "allocated_bytes_peak",
    "reserved_bytes_peak",
    "waste_bytes",
    "waste_percent",
    "retries",
    "cuda_malloc",
    "cuda_free",
    "map",
    "unmap",
    "synchronizations",
    "price_us",
    "error",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_row() {
        let line = csv_line(&SweepRow::default(), true).unwrap();
        assert_eq!(line.lines().next().unwrap(), NAMES.join(","));
    }
}
