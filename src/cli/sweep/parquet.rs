//! Rows of a sweep as a Parquet file, without Arrow.

use std::{io::Write, sync::Arc};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};

use crate::study::sweep::SweepRow;

/// Rows that are held at once.
const GROUP: usize = 20_000;

const SCHEMA: &str = "message sweep {
    required binary file (utf8);
    optional int64 device;
    required binary torch (utf8);
    required binary conf (utf8);
    optional int64 capacity_bytes;
    optional boolean survives;
    optional int64 died_at_op;
    optional int64 died_requested_bytes;
    optional int64 ops;
    optional int64 allocated_bytes_peak;
    optional int64 reserved_bytes_peak;
    optional int64 waste_bytes;
    optional double waste_percent;
    optional int64 retries;
    optional int64 cuda_malloc;
    optional int64 cuda_free;
    optional int64 map;
    optional int64 unmap;
    optional int64 synchronizations;
    optional double price_us;
    optional binary error (utf8);
}";

/// Writes all rows, some thousand at a time.
pub(super) fn write<W: Write + Send>(
    rows: &mut dyn Iterator<Item = anyhow::Result<SweepRow>>,
    out: W,
) -> anyhow::Result<()> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let packing = Compression::ZSTD(ZstdLevel::default());
    let properties = Arc::new(WriterProperties::builder().set_compression(packing).build());
    let mut writer = SerializedFileWriter::new(out, schema, properties)?;
    loop {
        let group = rows.take(GROUP).collect::<anyhow::Result<Vec<SweepRow>>>()?;
        if group.is_empty() {
            break;
        }
        let mut columns = writer.next_row_group()?;
        write_group(&group, &mut columns)?;
        columns.close()?;
    }
    writer.close()?;
    Ok(())
}

fn write_group<W: Write + Send>(
    rows: &[SweepRow],
    group: &mut SerializedRowGroupWriter<'_, W>,
) -> anyhow::Result<()> {
    let text = |of: fn(&SweepRow) -> &str| -> Vec<Option<ByteArray>> {
        rows.iter().map(|row| Some(ByteArray::from(of(row)))).collect()
    };
    let count = |of: fn(&SweepRow) -> Option<u64>| -> Vec<Option<i64>> {
        let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
        rows.iter().map(|row| of(row).map(signed)).collect()
    };
    let real =
        |of: fn(&SweepRow) -> Option<f64>| -> Vec<Option<f64>> { rows.iter().map(of).collect() };
    column::<ByteArrayType, W>(group, text(|row| &row.file), false)?;
    column::<Int64Type, W>(group, count(|row| row.device.map(u64::from)), true)?;
    column::<ByteArrayType, W>(group, text(|row| &row.torch), false)?;
    column::<ByteArrayType, W>(group, text(|row| &row.conf), false)?;
    column::<Int64Type, W>(group, count(|row| row.capacity_bytes), true)?;
    let survives = rows.iter().map(|row| row.survives).collect();
    column::<BoolType, W>(group, survives, true)?;
    let counts: [fn(&SweepRow) -> Option<u64>; 6] = [
        |row| row.died_at_op,
        |row| row.died_requested_bytes,
        |row| row.ops,
        |row| row.allocated_bytes_peak,
        |row| row.reserved_bytes_peak,
        |row| row.waste_bytes,
    ];
    for of in counts {
        column::<Int64Type, W>(group, count(of), true)?;
    }
    column::<DoubleType, W>(group, real(|row| row.waste_percent), true)?;
    let counts: [fn(&SweepRow) -> Option<u64>; 6] = [
        |row| row.retries,
        |row| row.cuda_malloc,
        |row| row.cuda_free,
        |row| row.map,
        |row| row.unmap,
        |row| row.synchronizations,
    ];
    for of in counts {
        column::<Int64Type, W>(group, count(of), true)?;
    }
    column::<DoubleType, W>(group, real(|row| row.price_us), true)?;
    let errors = rows.iter().map(|row| row.error.as_deref().map(ByteArray::from)).collect();
    column::<ByteArrayType, W>(group, errors, true)
}

/// The next column of a group.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: Vec<Option<T::T>>,
    is_optional: bool,
) -> anyhow::Result<()> {
    let Some(mut column) = group.next_column()? else {
        anyhow::bail!("the schema has fewer columns than a row")
    };
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let there: Vec<T::T> = values.into_iter().flatten().collect();
    let levels = is_optional.then_some(levels.as_slice());
    column.typed::<T>().write_batch(&there, levels, None)?;
    column.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::RowAccessor,
    };

    use super::*;
    use crate::cli::sweep::table::NAMES;

    #[test]
    fn rows_come_back_as_they_were_written() {
        let one = |n: u64| SweepRow {
            file: format!("run {n}"),
            reserved_bytes_peak: (n != 1).then_some(n << 33),
            survives: Some(n == 2),
            waste_percent: Some(12.5),
            error: (n == 1).then(|| "broken".to_owned()),
            ..SweepRow::default()
        };
        let file = tempfile::tempfile().unwrap();
        write(&mut (0..3).map(|n| Ok(one(n))), file.try_clone().unwrap()).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let schema = reader.metadata().file_metadata().schema_descr();
        let names: Vec<_> = schema.columns().iter().map(|c| c.name().to_owned()).collect();
        assert_eq!(names, NAMES);
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2].get_string(0).unwrap(), "run 2");
        assert_eq!(rows[2].get_long(10).unwrap(), 2 << 33);
        assert!(rows[2].get_bool(5).unwrap() && rows[1].get_long(10).is_err());
        assert_eq!(rows[1].get_string(20).unwrap(), "broken");
    }
}
