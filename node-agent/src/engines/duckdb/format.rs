//! Which kinds of files can be staged, and how they are told from each other.

/// What a file is written in. A file of any kind but Parquet may be packed with gzip or Zstandard, which its first bytes
/// say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileFormat {
    /// Apache Parquet.
    #[default]
    Parquet,
    /// Lines of values between commas, with a header, as in RFC 4180.
    Csv,
    /// JSON objects, one a line or in one array.
    Json,
    /// Arrow IPC, as a file or as a stream.
    Arrow,
}

impl FileFormat {
    /// The words of [`parse`](Self::parse).
    pub const WORDS: &[&str] = &["parquet", "csv", "json", "arrow"];

    /// The format with this name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "arrow" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// The format that the ending of a file's name says; Parquet for every ending that says none.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let packed = [".gz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending));
        match packed.unwrap_or(&name).rsplit_once('.').map(|(_, ending)| ending) {
            Some("csv") => Self::Csv,
            Some("json" | "jsonl" | "ndjson") => Self::Json,
            Some("arrow" | "arrows" | "ipc" | "feather") => Self::Arrow,
            _ => Self::Parquet,
        }
    }

    /// Its name, as messages have it.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
            Self::Json => "JSON",
            Self::Arrow => "Arrow IPC",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_say_the_format() {
        for (name, format) in [
            ("s3://b/a.csv", FileFormat::Csv),
            ("s3://b/a.CSV.GZ", FileFormat::Csv),
            ("a.ndjson.zst", FileFormat::Json),
            ("a.json", FileFormat::Json),
            ("file:///in/x.csv/a.arrow", FileFormat::Arrow),
            ("a.feather", FileFormat::Arrow),
            ("a.csv.parquet", FileFormat::Parquet),
            ("a.snappy.parquet", FileFormat::Parquet),
            ("part-0", FileFormat::Parquet),
            ("a.gz", FileFormat::Parquet),
        ] {
            assert_eq!(FileFormat::of_name(name), format, "{name}");
        }
        for word in FileFormat::WORDS {
            assert_eq!(
                FileFormat::of_name(&format!("x.{word}")),
                FileFormat::parse(word).unwrap_or_default()
            );
        }
        assert_eq!(FileFormat::parse("CSV"), None);
    }
}
