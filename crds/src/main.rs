//! Prints the custom resource definitions as YAML, or writes one file for each into the folder
//! given: `cargo run -p quokka-crds -- crds`.

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    match run(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: Option<PathBuf>) -> Result<(), String> {
    for (file, yaml) in
        quokka_crds::manifests().map_err(|error| format!("generate the resources: {error}"))?
    {
        match &folder {
            Some(folder) => {
                let path = folder.join(file);
                fs::write(&path, yaml)
                    .map_err(|error| format!("write {}: {error}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(())
}
