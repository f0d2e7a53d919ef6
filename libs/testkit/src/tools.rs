//! Where the servers' programs are.

use std::path::{Path, PathBuf};

use crate::Error;

/// The folder that `make tools` fills.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("QUOKKA_CACHE").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
                .join(".cache/quokka")
        },
        PathBuf::from,
    )
}

/// The program `name`: from the cache, from `folders`, or from the `PATH`.
pub(crate) fn find(name: &str, folders: &[PathBuf]) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let looked: Vec<PathBuf> = std::iter::once(cache().join("bin"))
        .chain(folders.iter().cloned())
        .chain(std::env::split_paths(&path))
        .collect();
    looked
        .iter()
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .ok_or_else(|| Error::MissingTool {
            program: name.to_owned(),
            looked: listed(&looked),
        })
}

/// The folders of PostgreSQL's server programs, newest version first: Debian keeps them off the `PATH`.
pub(crate) fn postgres_folders() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
        .iter()
        .map(|version| {
            Path::new("/usr/lib/postgresql")
                .join(version.to_string())
                .join("bin")
        })
        .collect()
}

/// The class path of Kafka.
pub(crate) fn kafka_class_path() -> Result<String, Error> {
    let jars = cache().join("kafka/libs");
    let there = std::fs::read_dir(&jars).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("kafka_2.13-")
            })
        })
    });
    if !there {
        return Err(Error::MissingTool {
            program: "Kafka".to_owned(),
            looked: jars.display().to_string(),
        });
    }
    Ok(format!("{}/*", jars.display()))
}

fn listed(folders: &[PathBuf]) -> String {
    folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
