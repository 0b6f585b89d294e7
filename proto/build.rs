//! Compiles the .proto files without a `protoc` on the machine.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["common", "workers", "jobs", "cluster"].map(|name| format!("gapless/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut descriptors = protox::compile(&files, ["."])?;
    // Comments belong in the generated docs; the reflection service needs only the shapes.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors.clone())?;
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    std::fs::write(
        out.join("descriptors.bin"),
        protox::prost::Message::encode_to_vec(&descriptors),
    )?;
    Ok(())
}
