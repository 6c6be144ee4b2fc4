//! Arrow IPC files and streams, written out as JSON lines with the types of their columns: what DuckDB reads without an
//! extension and without memory that is shared between the two.
//!
//! The reader of the library checks offsets and texts, but trusts the lengths of messages with allocations, and panics on
//! some contradictions. So every length is compared with what the file has before the reader sees it, and a panic is an
//! error about the file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{CompressionType, Endianness, Message, RecordBatch as BatchHeader, root_as_message};

use super::super::error::EngineError;
use super::super::names::sql_identifier;
use super::control::SqlControl;
use super::incoming::{Limits, check_columns};
use super::json::{LONGEST_LINE, write_line};
use super::staging::StagingColumn;

/// How a file in Arrow's file format begins; a stream of messages follows.
const MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// Where the first message begins at the latest.
const MOST_PADDING: u64 = 64;
/// Longest description of a message.
const MAX_HEADER: u64 = 16 << 20;
/// Most memory that a batch, or all dictionaries together, may take.
const MAX_BATCH: u64 = 256 << 20;
/// How a frame of the first version of LZ4 begins.
const LZ4_LEGACY: u32 = 0x184c_2102;
/// In the length of a block: it is not packed.
const LZ4_PLAIN: u32 = 1 << 31;
/// Bytes between two looks at whether the load was cancelled.
const PORTION: usize = 1 << 20;

/// Writes the rows of `source` to `target`, within the limits, and returns their columns.
///
/// # Errors
/// `Invalid`, with what is wrong with the file, and what the limits and `control` say.
pub(super) fn transcribe(
    source: &Path,
    target: &Path,
    limits: &Limits<'_>,
    control: &SqlControl,
) -> Result<Vec<StagingColumn>, EngineError> {
    let work = || {
        let start = check_lengths(source)?;
        write_rows(source, start, target, limits, control)
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(bad("its parts contradict each other")))
}

fn bad(message: impl Into<String>) -> EngineError {
    EngineError::invalid("files", message)
}

fn write_rows(
    source: &Path,
    start: u64,
    target: &Path,
    limits: &Limits<'_>,
    control: &SqlControl,
) -> Result<Vec<StagingColumn>, EngineError> {
    let read = |error: std::io::Error| EngineError::io("read", source, error);
    let write = |error: std::io::Error| EngineError::io("write", target, error);
    let mut file = File::open(source).map_err(read)?;
    file.seek(SeekFrom::Start(start)).map_err(read)?;
    let reader = StreamReader::try_new(BufReader::new(file), None).map_err(|error| bad(error.to_string()))?;
    let schema = reader.schema();
    check_columns(schema.fields().len())?;
    let mut columns: Vec<StagingColumn> = Vec::new();
    for field in schema.fields() {
        let name = field.name();
        let same = |column: &StagingColumn| column.name.eq_ignore_ascii_case(name);
        if name.is_empty() || columns.iter().any(same) {
            return Err(bad(format!("column {:?} is there twice, or has no name", name)));
        }
        let type_name = type_of(field.data_type()).ok_or_else(|| {
            bad(format!(
                "column {name:?} is of the type {}, which staging has not; cast it",
                field.data_type()
            ))
        })?;
        columns.push(StagingColumn {
            name: name.clone(),
            type_name,
        });
    }
    if columns.is_empty() {
        return Err(bad("it has no columns"));
    }
    let mut out = BufWriter::new(File::create(target).map_err(write)?);
    let (mut lines, mut size) = (Vec::new(), 0u64);
    for batch in reader {
        let batch = batch.map_err(|error| bad(error.to_string()))?;
        for row in 0..batch.num_rows() {
            if !write_line(&mut lines, &batch, row) {
                return Err(bad(format!(
                    "it has a row of more than {} MiB; make its values shorter",
                    LONGEST_LINE >> 20
                )));
            }
            if lines.len() > PORTION || row + 1 == batch.num_rows() {
                control.check()?;
                size += lines.len() as u64;
                limits.check(target, size)?;
                out.write_all(&lines).map_err(write)?;
                lines.clear();
            }
        }
    }
    out.flush().map_err(write)?;
    Ok(columns)
}

/// The DuckDB type of a column, or `None` if what it holds cannot be written as JSON and read again.
fn type_of(arrow: &DataType) -> Option<String> {
    // Bytes are read back from base64 as a whole column only.
    let nested = |field: &FieldRef| type_of(field.data_type()).filter(|name| name != "BLOB");
    let name = match arrow {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "UTINYINT",
        DataType::UInt16 => "USMALLINT",
        DataType::UInt32 => "UINTEGER",
        DataType::UInt64 => "UBIGINT",
        DataType::Float16 | DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "BLOB",
        DataType::Date32 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP_NS",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).ok()?;
            return Some(format!("DECIMAL({precision},{scale})"));
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            return Some(format!("{}[]", nested(item)?));
        }
        DataType::Struct(fields) if !fields.is_empty() => {
            let types: Option<Vec<String>> = fields
                .iter()
                .map(|field| Some(format!("{} {}", sql_identifier(field.name()), nested(field)?)))
                .collect();
            return Some(format!("STRUCT({})", types?.join(", ")));
        }
        DataType::Dictionary(_, values) => return type_of(values),
        _ => return None,
    };
    Some(name.to_owned())
}

/// Compares every length in the file with the file, and returns where its messages begin.
fn check_lengths(source: &Path) -> Result<u64, EngineError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => bad("it ends too early"),
        _ => EngineError::io("read", source, error),
    };
    let file = File::open(source).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut file = BufReader::new(file);
    let mut magic = Vec::new();
    (&mut file)
        .take(MAGIC.len() as u64)
        .read_to_end(&mut magic)
        .map_err(failed)?;
    let mut start = if magic == MAGIC { MAGIC.len() as u64 } else { 0 };
    // Writers align the first message, some to more than eight bytes.
    while (1..MOST_PADDING).contains(&start) && start + 8 <= size {
        let word = [
            four_bytes(&mut file).map_err(failed)?,
            four_bytes(&mut file).map_err(failed)?,
        ];
        if word != [[0; 4]; 2] {
            break;
        }
        start += 8;
    }
    let (mut at, mut dictionaries) = (start, 0u64);
    // At least the schema.
    let mut seen = false;
    while at < size {
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        let mut length = four_bytes(&mut file).map_err(failed)?;
        at += 4;
        if length == [0xff; 4] {
            length = four_bytes(&mut file).map_err(failed)?;
            at += 4;
        }
        let length = u64::try_from(i32::from_le_bytes(length)).map_err(|_| bad("a length in it is negative"))?;
        if length == 0 {
            break;
        }
        if length > MAX_HEADER || length > size - at {
            return Err(bad("it is no Arrow IPC, or cut off"));
        }
        let mut header = Vec::new();
        (&mut file).take(length).read_to_end(&mut header).map_err(failed)?;
        at += length;
        let message = root_as_message(&header).map_err(|error| bad(format!("it has no Arrow message: {error}")))?;
        let body = u64::try_from(message.bodyLength()).map_err(|_| bad("a length in it is negative"))?;
        if body > size - at {
            return Err(bad("it is cut off"));
        }
        let memory = memory_of(&message, body, |offset, bytes| {
            file.seek(SeekFrom::Start(at + offset))?;
            file.read_exact(bytes)
        })?;
        if message.header_as_dictionary_batch().is_some() {
            dictionaries = dictionaries.saturating_add(memory);
        }
        if memory.max(dictionaries) > MAX_BATCH {
            return Err(bad(format!(
                "it has a batch, or dictionaries, of more than {} MiB; write smaller batches",
                MAX_BATCH >> 20
            )));
        }
        if let Some(schema) = message.header_as_schema()
            && schema.endianness() != Endianness::Little
        {
            return Err(bad("it is written with the highest byte first"));
        }
        seen = true;
        at += body;
    }
    match seen {
        true => Ok(start),
        false => Err(bad("it is empty")),
    }
}

fn four_bytes(file: &mut impl Read) -> std::io::Result<[u8; 4]> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes).map(|()| bytes)
}

/// The memory that a message takes when it is read. `read` reads bytes of its body.
fn memory_of(
    message: &Message<'_>,
    body: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> Result<u64, EngineError> {
    let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
    let Some(batch): Option<BatchHeader<'_>> = message.header_as_record_batch().or(dictionary) else {
        return Ok(body);
    };
    let mut memory = body;
    for buffer in batch.buffers().into_iter().flatten() {
        let (offset, length) = match (u64::try_from(buffer.offset()), u64::try_from(buffer.length())) {
            (Ok(offset), Ok(length)) if offset.checked_add(length).is_some_and(|end| end <= body) => (offset, length),
            _ => return Err(bad("a buffer in it lies outside of its message")),
        };
        let Some(packed) = batch.compression().filter(|_| length > 0) else {
            continue;
        };
        if length < 8 {
            return Err(bad("a packed buffer in it has no length"));
        }
        let failed = |error: std::io::Error| bad(format!("it cannot be read: {error}"));
        let mut prefix = [0; 8];
        read(offset, &mut prefix).map_err(failed)?;
        // -1 stands for a buffer that is not packed.
        let unpacked = u64::try_from(i64::from_le_bytes(prefix)).unwrap_or(0);
        memory = memory.saturating_add(unpacked);
        // What is unpacked with Zstandard is limited by what the buffer says.
        if packed.codec() == CompressionType::LZ4_FRAME
            && unpacked > 0
            && lz4_exceeds(unpacked, offset + 8, offset + length, &mut read).map_err(failed)?
        {
            return Err(bad("a packed buffer in it is longer than it says"));
        }
    }
    Ok(memory)
}

/// Whether the LZ4 frame from `at` to `end` can become longer than `says` by more than one of its blocks. The reader of the
/// library compares that only when it has unpacked all of it.
fn lz4_exceeds(
    says: u64,
    mut at: u64,
    end: u64,
    read: &mut impl FnMut(u64, &mut [u8]) -> std::io::Result<()>,
) -> std::io::Result<bool> {
    let mut word = [0; 4];
    // What is too short, or of a kind that is not known, the reader refuses.
    if end - at < 7 {
        return Ok(false);
    }
    read(at, &mut word)?;
    at += 4;
    let (block, checksum) = if u32::from_le_bytes(word) == LZ4_LEGACY {
        (8 << 20, 0)
    } else {
        let mut about = [0; 2];
        read(at, &mut about)?;
        let [flags, block] = about;
        let has = |flag: u8, bytes: u64| if flags & flag == 0 { 0 } else { bytes };
        // The size of the content and the id of a dictionary may stand before a byte of checksum.
        at += 3 + has(8, 8) + has(1, 4);
        match (block >> 4) & 7 {
            code @ 4..=7 => (1u64 << (8 + 2 * code), has(16, 4)),
            _ => return Ok(false),
        }
    };
    let mut most = 0;
    while end.saturating_sub(at) >= 4 {
        read(at, &mut word)?;
        let size = u32::from_le_bytes(word);
        if size == 0 {
            break;
        }
        let length = u64::from(size & !LZ4_PLAIN);
        // No byte of LZ4 stands for more than 255.
        let becomes = if size & LZ4_PLAIN == 0 {
            255 * (length + 1)
        } else {
            length
        };
        most += becomes.min(block);
        if most > says + block {
            return Ok(true);
        }
        at += 4 + length + checksum;
    }
    Ok(false)
}
