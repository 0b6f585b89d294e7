//! Compiles the .proto files, and keeps their descriptors for the reflection service.

use std::{env, io, path::PathBuf};

fn main() -> io::Result<()> {
    let files = ["common", "workers", "jobs", "cluster"].map(|name| format!("gapless/v1/{name}.proto"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    tonic_prost_build::configure()
        .bytes(".")
        .file_descriptor_set_path(out.join("descriptors.bin"))
        .compile_protos(&files, &[".".to_string()])
}
