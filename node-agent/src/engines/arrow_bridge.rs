//! DuckDB's Arrow batches, handed over to LadybugDB. The two are built against different majors of the same library,
//! which agree on the Arrow C Data Interface: two structs of fixed layout that own their buffers through a release
//! callback. Handing over moves these structs and copies no data.
//!
//! This is the only module of the workspace with `unsafe` code.
#![allow(unsafe_code)]

use std::mem::{align_of, size_of, transmute};

use arrow::array::{Array, StructArray};
use arrow::record_batch::RecordBatch;

use super::error::EngineError;

/// The rows of a batch beyond this number get wrong NULLs in LadybugDB, and scanning is quadratic in it.
pub(crate) const MAX_BATCH_ROWS: usize = 2048;

const _: () = {
    assert!(size_of::<arrow::ffi::FFI_ArrowArray>() == size_of::<arrow55::ffi::FFI_ArrowArray>());
    assert!(align_of::<arrow::ffi::FFI_ArrowArray>() == align_of::<arrow55::ffi::FFI_ArrowArray>());
    assert!(size_of::<arrow::ffi::FFI_ArrowSchema>() == size_of::<arrow55::ffi::FFI_ArrowSchema>());
    assert!(align_of::<arrow::ffi::FFI_ArrowSchema>() == align_of::<arrow55::ffi::FFI_ArrowSchema>());
    // Ten and nine words: the layout that the C Data Interface prescribes on 64-bit platforms.
    assert!(size_of::<arrow::ffi::FFI_ArrowArray>() == 80 && size_of::<arrow::ffi::FFI_ArrowSchema>() == 72);
};

/// Hands a batch over. Its buffers are freed when both sides have let go of them.
pub(crate) fn hand_over(batch: &RecordBatch) -> Result<arrow55::record_batch::RecordBatch, EngineError> {
    let failed = |error: &dyn std::fmt::Display| EngineError::internal(format!("hand over an Arrow batch: {error}"));
    let data = StructArray::from(batch.clone()).into_data();
    let (array, schema) = arrow::ffi::to_ffi(&data).map_err(|error| failed(&error))?;
    // SAFETY: both types are `#[repr(C)]` images of the same C struct (`struct ArrowArray`); size and alignment are
    // checked above. The value is moved, so its release callback runs exactly once, on the other side.
    let array = unsafe { transmute::<arrow::ffi::FFI_ArrowArray, arrow55::ffi::FFI_ArrowArray>(array) };
    // SAFETY: the same, for `struct ArrowSchema`.
    let schema = unsafe { transmute::<arrow::ffi::FFI_ArrowSchema, arrow55::ffi::FFI_ArrowSchema>(schema) };
    // SAFETY: `array` and `schema` were exported together by `to_ffi` and describe each other.
    let data = unsafe { arrow55::ffi::from_ffi(array, &schema) }.map_err(|error| failed(&error))?;
    Ok(arrow55::record_batch::RecordBatch::from(
        arrow55::array::StructArray::from(data),
    ))
}

/// Cuts a batch into pieces that LadybugDB reads correctly. Pieces share the memory of the batch.
pub(crate) fn pieces(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> + '_ {
    let rows = batch.num_rows();
    (0..rows)
        .step_by(MAX_BATCH_ROWS)
        .map(move |start| batch.slice(start, MAX_BATCH_ROWS.min(rows - start)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    /// A column of some type that staging can produce, with NULLs, from the real engine. The type follows `->` where
    /// DuckDB has no CASE over it.
    fn from_duckdb(expression: &str) -> RecordBatch {
        let connection = duckdb::Connection::open_in_memory().unwrap();
        let (value, cast) = expression
            .split_once(" -> ")
            .map_or((expression, String::new()), |(value, ty)| (value, format!("::{ty}")));
        let sql = format!("SELECT (CASE WHEN k % 3 = 0 THEN NULL ELSE {value} END){cast} AS c FROM range(10) t(k)");
        let mut statement = connection.prepare(&sql).unwrap();
        let batches: Vec<_> = statement.query_arrow([]).unwrap().collect();
        assert_eq!(batches.len(), 1);
        batches.into_iter().next().unwrap()
    }

    // The same code for both majors: what a column shows, with times as numbers, since neither knows names of zones.
    macro_rules! printed {
        ($name:ident, $arrow:ident) => {
            fn $name(batch: &$arrow::record_batch::RecordBatch) -> Vec<String> {
                use $arrow::array::AsArray;
                use $arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
                use $arrow::util::display::{ArrayFormatter, FormatOptions};
                let column = batch.column(0);
                if let DataType::Timestamp(TimeUnit::Microsecond, Some(_)) = column.data_type() {
                    return column
                        .as_primitive::<TimestampMicrosecondType>()
                        .iter()
                        .map(|at| format!("{at:?}"))
                        .collect();
                }
                let options = FormatOptions::default();
                let format = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
                (0..batch.num_rows())
                    .map(|row| format.value(row).to_string())
                    .collect()
            }
        };
    }
    printed!(printed, arrow);
    printed!(printed_55, arrow55);

    macro_rules! one_type {
        ($($name:ident: $expression:literal,)*) => {$(
            #[test]
            fn $name() {
                let batch = from_duckdb($expression);
                let other = hand_over(&batch).unwrap();
                assert_eq!(other.num_rows(), 10);
                assert_eq!(other.column(0).null_count(), 4);
                let before = arrow::ffi::FFI_ArrowSchema::try_from(batch.schema().field(0).data_type()).unwrap();
                let after = arrow55::ffi::FFI_ArrowSchema::try_from(other.schema().field(0).data_type()).unwrap();
                assert_eq!(after.format(), before.format());
                assert_eq!(printed_55(&other), printed(&batch));
                let piece = batch.slice(3, 4);
                assert_eq!(printed_55(&hand_over(&piece).unwrap()), printed(&piece));
            }
        )*};
    }

    one_type! {
        booleans: "k % 2 = 0",
        tiny_integers: "k::TINYINT",
        small_integers: "k::SMALLINT",
        integers: "k::INTEGER",
        big_integers: "k::BIGINT",
        unsigned_tiny_integers: "k::UTINYINT",
        unsigned_small_integers: "k::USMALLINT",
        unsigned_integers: "k::UINTEGER",
        unsigned_big_integers: "18446744073709551615::UBIGINT",
        huge_integers: "(k * 1000000000000000000)::HUGEINT",
        floats: "(k / 3)::FLOAT",
        doubles: "k / 7",
        decimals: "(k * 1.25)::DECIMAL(18, 4)",
        text: "'é' || k",
        long_text: "repeat('x', (k * 100)::INTEGER)",
        blobs: "'\\x00\\xFF'::BLOB",
        dates: "DATE '2020-02-29' + k::INTEGER",
        times: "TIME '01:02:03.5'",
        timestamps: "TIMESTAMP '2020-02-29 01:02:03.000004'",
        timestamps_s: "TIMESTAMP_S '2020-02-29 01:02:03'",
        timestamps_ms: "TIMESTAMP_MS '2020-02-29 01:02:03.004'",
        timestamps_ns: "TIMESTAMP_NS '2020-02-29 01:02:03.000000004'",
        timestamps_with_zone: "TIMESTAMPTZ '2020-02-29 01:02:03+02'",
        lists: "[k, NULL, 3]",
        lists_of_text: "['a', NULL, 'c' || k]",
        lists_of_lists: "[[k], [], NULL]",
        arrays: "[1.5::FLOAT, k::FLOAT, NULL] -> FLOAT[3]",
        structs: "{'a': k, 'b': 'x'}",
        maps: "MAP {'a': k, 'b': NULL}",
        enums: "(CASE WHEN k % 2 = 0 THEN 'even' ELSE 'odd' END)::ENUM('even', 'odd')",
    }

    #[test]
    fn several_columns_keep_their_names_and_order() {
        let connection = duckdb::Connection::open_in_memory().unwrap();
        let mut statement = connection
            .prepare("SELECT 1 AS a, 'x' AS b, NULL::DOUBLE AS c")
            .unwrap();
        let batch = statement.query_arrow([]).unwrap().next().unwrap();
        let other = hand_over(&batch).unwrap();
        let names: Vec<_> = other
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn buffers_live_as_long_as_the_longer_side() {
        let array = Arc::new(arrow::array::StringArray::from_iter_values(
            (0..5000).map(|n| format!("value {n}")),
        ));
        let batch = RecordBatch::try_from_iter([("c", array as arrow::array::ArrayRef)]).unwrap();
        let handed: Vec<_> = pieces(&batch).map(|piece| hand_over(&piece).unwrap()).collect();
        drop(batch);
        assert_eq!(
            handed.iter().map(|piece| piece.num_rows()).collect::<Vec<_>>(),
            [2048, 2048, 904]
        );
        assert_eq!(printed_55(&handed[2]).last().map(String::as_str), Some("value 4999"));
    }
}
