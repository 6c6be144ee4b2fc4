//! Which file goes into which table.

use crate::args::{LoadArguments, Relationship};
use crate::failure::{Exit, Failure};
use graphplane_crds::ids::TableName;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A file to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) table: TableName,
    /// Under which its rows are staged: loading a file of the same name again replaces them, and a dry run does not.
    pub(super) file_id: String,
    pub(super) bytes: u64,
}

/// The files of a command, in the order in which they were named.
pub(super) fn sources(arguments: &LoadArguments) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> = Vec::new();
    let mut known: HashMap<(TableName, String), PathBuf> = HashMap::new();
    for path in arguments
        .files
        .iter()
        .map(|path| expand(path))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
    {
        let source = source(path, arguments)?;
        let key = (source.table.clone(), source.file_id.clone());
        if let Some(other) = known.insert(key, source.path.clone()) {
            let (one, two) = (other.display(), source.path.display());
            return Err(Failure::usage(format!(
                "{one} and {two} have the same name, and so one would replace the other"
            ))
            .advise("rename one of them, for example Airport.1.parquet and Airport.2.parquet"));
        }
        sources.push(source);
    }
    check_relationships(&arguments.relationships, &sources)?;
    Ok(sources)
}

/// A directory stands for the Parquet files in it, sorted by name.
fn expand(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |error| Failure::io(format_args!("reading the directory {}", path.display()), &error);
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        if file.is_file()
            && file
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
        {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no .parquet file in {}", path.display()),
        ));
    }
    files.sort();
    Ok(files)
}

fn source(path: PathBuf, arguments: &LoadArguments) -> Result<Source, Failure> {
    let bytes = check_parquet(&path)?;
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of_file = || file.split('.').next().unwrap_or_default();
    let name = arguments.table.as_deref().unwrap_or_else(of_file);
    let table = name.parse::<TableName>().map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display())).advise("rename the file, or name the table with --table")
    })?;
    let file_id = if arguments.dry_run {
        format!("dry-run.{file}")
    } else {
        file
    };
    Ok(Source {
        path,
        table,
        file_id,
        bytes,
    })
}

/// Looks at both ends of a file before it is sent: a Parquet file begins and ends with four letters. Gives its size.
fn check_parquet(path: &Path) -> Result<u64, Failure> {
    let read = || -> std::io::Result<(u64, bool)> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut ends = [0; 8];
        if size < 12 {
            return Ok((size, false));
        }
        file.read_exact(&mut ends[..4])?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut ends[4..])?;
        // The second form is that of a file with an encrypted footer, which the engine refuses with words of its own.
        Ok((size, ends == *b"PAR1PAR1" || ends == *b"PAREPARE"))
    };
    match read() {
        Ok((size, true)) => Ok(size),
        Ok((_, false)) => Err(
            Failure::usage(format!("{} is not a Parquet file, or is cut short", path.display()))
                .advise("convert it, for example with DuckDB: COPY (FROM 'x.csv') TO 'x.parquet'"),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::new(
            Exit::NotFound,
            format!("there is no file {}", path.display()),
        )),
        Err(error) => Err(Failure::io(format_args!("reading {}", path.display()), &error)),
    }
}

fn check_relationships(relationships: &[Relationship], sources: &[Source]) -> Result<(), Failure> {
    let tables: BTreeSet<&str> = sources.iter().map(|source| source.table.as_str()).collect();
    for relationship in relationships {
        if !tables.contains(relationship.table.as_str()) {
            let known = tables.into_iter().collect::<Vec<_>>().join(", ");
            let table = &relationship.table;
            return Err(Failure::usage(format!(
                "--relationship names the table {table}, for which there is no file"
            ))
            .advise(format!("the files are for {known}")));
        }
    }
    Ok(())
}

/// A table to fill, with what the server said of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StagedTable {
    pub(super) name: TableName,
    pub(super) kind: String,
    pub(super) file_ids: Vec<String>,
    pub(super) rows: u64,
}

impl StagedTable {
    pub(super) fn is_relationship(&self) -> bool {
        self.kind == "relationship"
    }
}

/// The tables in the order in which they are filled: nodes before the relationships that connect them, otherwise as
/// the files were named.
pub(super) fn tables(staged: impl IntoIterator<Item = (TableName, String, String, u64)>) -> Vec<StagedTable> {
    let mut tables: Vec<StagedTable> = Vec::new();
    let mut places: BTreeMap<TableName, usize> = BTreeMap::new();
    for (name, file_id, kind, rows) in staged {
        let place = *places.entry(name.clone()).or_insert_with(|| {
            tables.push(StagedTable {
                name,
                kind,
                file_ids: Vec::new(),
                rows: 0,
            });
            tables.len() - 1
        });
        tables[place].file_ids.push(file_id);
        tables[place].rows += rows;
    }
    tables.sort_by_key(StagedTable::is_relationship);
    tables
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parquet(path: PathBuf) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"PAR1 a footer PAR1").unwrap();
        path
    }

    fn arguments(files: &[PathBuf]) -> LoadArguments {
        LoadArguments {
            graph: "g".into(),
            files: files.to_vec(),
            table: None,
            create_tables: false,
            relationships: Vec::new(),
            stage_only: false,
            dry_run: false,
            timeout: None,
        }
    }

    fn names(sources: &[Source]) -> Vec<(&str, &str)> {
        sources
            .iter()
            .map(|source| (source.table.as_str(), source.file_id.as_str()))
            .collect()
    }

    #[test]
    fn the_table_is_the_files_name_up_to_the_first_dot() {
        let root = tempfile::tempdir().unwrap();
        let files = ["Route.parquet", "Airport.2.parquet"].map(|name| parquet(root.path().join(name)));
        let found = sources(&arguments(&files)).unwrap();
        assert_eq!(
            names(&found),
            [("Route", "Route.parquet"), ("Airport", "Airport.2.parquet")]
        );
        assert_eq!(found[0].bytes, 18);
        let dry = LoadArguments {
            dry_run: true,
            ..arguments(&files)
        };
        assert_eq!(names(&sources(&dry).unwrap())[0], ("Route", "dry-run.Route.parquet"));
        let named = LoadArguments {
            table: Some("T".into()),
            ..arguments(&files)
        };
        assert!(
            sources(&named)
                .unwrap()
                .iter()
                .all(|source| source.table.as_str() == "T")
        );
    }

    #[test]
    fn a_directory_stands_for_the_parquet_files_in_it() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.parquet", "a.PARQUET", "deeper/c.parquet"] {
            parquet(root.path().join(name));
        }
        std::fs::write(root.path().join("graph.yaml"), "").unwrap();
        let found = sources(&arguments(&[root.path().to_owned()])).unwrap();
        assert_eq!(names(&found), [("a", "a.PARQUET"), ("b", "b.parquet")]);
        let empty = root.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert_eq!(sources(&arguments(&[empty])).unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn what_cannot_be_loaded_is_named_before_anything_is_sent() {
        let root = tempfile::tempdir().unwrap();
        let failure = |path: PathBuf| sources(&arguments(&[path])).unwrap_err();
        assert_eq!(failure(root.path().join("absent.parquet")).exit, Exit::NotFound);
        for (name, content) in [
            ("short.parquet", &b"PAR1"[..]),
            ("cut.parquet", b"PAR1 cut in the middle"),
            ("a.csv", b"a,b\n1,2\n3,4\n"),
        ] {
            let path = root.path().join(name);
            std::fs::write(&path, content).unwrap();
            let failure = failure(path);
            assert!(
                failure.exit == Exit::Usage && failure.message.contains(name),
                "{failure}"
            );
        }
        let failure = failure(parquet(root.path().join("2024-data.parquet")));
        assert!(
            failure.message.contains("table name `2024-data` is not valid"),
            "{failure}"
        );
        assert!(failure.advice.unwrap().contains("--table"));
    }

    #[test]
    fn files_of_one_name_would_replace_each_other() {
        let root = tempfile::tempdir().unwrap();
        let files = ["a/Airport.parquet", "b/Airport.parquet"].map(|name| parquet(root.path().join(name)));
        let failure = sources(&arguments(&files)).unwrap_err();
        assert!(failure.message.contains("a/Airport.parquet") && failure.message.contains("b/Airport.parquet"));
    }

    #[test]
    fn a_relationship_without_a_file_is_a_mistake() {
        let root = tempfile::tempdir().unwrap();
        let relationship = Relationship {
            table: "Rout".into(),
            from: "A".into(),
            to: "A".into(),
        };
        let arguments = LoadArguments {
            relationships: vec![relationship],
            ..arguments(&[parquet(root.path().join("Route.parquet"))])
        };
        let failure = sources(&arguments).unwrap_err();
        assert!(failure.message.contains("Rout") && failure.advice.unwrap().contains("Route"));
    }

    #[test]
    fn nodes_are_filled_before_relationships() {
        let staged =
            |name: &str, file: &str, kind: &str, rows| (name.parse().unwrap(), file.to_owned(), kind.to_owned(), rows);
        let tables = tables([
            staged("Route", "Route.parquet", "relationship", 5),
            staged("Airport", "Airport.1.parquet", "other", 2),
            staged("City", "City.parquet", "node", 1),
            staged("Airport", "Airport.2.parquet", "other", 3),
        ]);
        let order: Vec<(&str, u64, usize)> = tables
            .iter()
            .map(|table| (table.name.as_str(), table.rows, table.file_ids.len()))
            .collect();
        assert_eq!(order, [("Airport", 5, 2), ("City", 1, 1), ("Route", 5, 1)]);
    }
}
