//! Input that is missing, no file, empty, cut off, damaged, or larger than it looks.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    process::{Command, Stdio},
};

use crate::room::{Room, copy_of};

const COLUMNS: &str = "{id: int64, v: string}";

/// What a process may hold at once of a file without line ends or one that grows when it is unpacked: a record of
/// 16 MiB a few times over, and the engine at rest.
const PEAK_MIB: u64 = 400;

fn of(path: &str) -> String {
    copy_of(COLUMNS).replace("in.csv", path)
}

#[test]
fn what_is_not_there_or_no_file_is_told_before_any_record_is_read() {
    let room = Room::new("no file").job(&of("in.csv"));
    room.fails("step a, survey: in.csv: no such file (while opening it); mend the path, or wait for the file");
    let room = Room::new("no match").job(&of("\"data/*.csv\""));
    room.fails("step a, survey: no file matches data/*.csv (looked in /");
    let room = Room::new("a folder").file("data/in.csv", "id,v\n").job(&of("data"));
    room.fails("step a, survey: data is a folder; name the files in it, for example data/*");
    let room = Room::new("a pipe").job(&of("in.csv"));
    let made = Command::new("mkfifo").arg(room.path("in.csv")).status();
    assert!(made.is_ok_and(|status| status.success()), "a pipe is made");
    room.fails("step a, survey: in.csv is a pipe; a source must be a file that can be read again");
    let room = Room::new("twice")
        .file("in.csv", "id,v\n")
        .job(&of("[in.csv, \"in*.csv\"]"));
    room.fails("step a, survey: in.csv is named twice by the source's paths; its records would be read twice");
    for (what, second) in [
        ("another spelling", "./in.csv"),
        ("a glob and a spelling", "\"./in*.csv\""),
    ] {
        let room = Room::new(what)
            .file("in.csv", "id,v\n")
            .job(&of(&format!("[in.csv, {second}]")));
        room.fails("is named twice by the source's paths");
    }
    let room = Room::new("a link beside its file")
        .file("in-1.csv", "id,v\n1,x\n")
        .job(&of("\"in-*.csv\""));
    std::os::unix::fs::symlink("in-1.csv", room.path("in-2.csv")).expect("made");
    room.fails(
        "step a, survey: in-2.csv is named twice by the source's paths, which also have it as in-1.csv; its records would \
         be read twice",
    );
    let room = Room::new("a link to nothing").job(&of("in.csv"));
    std::os::unix::fs::symlink("gone.csv", room.path("in.csv")).expect("made");
    room.fails("step a, survey: in.csv: no such file");
    let room = Room::new("another store").job(&of("ftp://host/in.csv"));
    room.is_refused(
        "`path` in csv source has a scheme that is not known; known are s3://, gs:// and az://: \"ftp://host/in.csv\"",
    );
}

#[test]
fn nothing_in_a_file_is_no_record_and_no_fault() {
    for (what, input) in [
        ("an empty file", ""),
        ("a header", "id,v\n"),
        ("a header without a line end", "id,v"),
        ("a byte order mark", "\u{feff}"),
        ("a header and empty lines", "id,v\n\n\n"),
    ] {
        let room = Room::new(what).file("in.csv", input).job(&of("in.csv"));
        let ended = room.makes(&[]);
        let row: Vec<&str> = ended
            .stdout
            .lines()
            .nth(1)
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(row[..3], ["a", "published", "0"], "{what}: {}", ended.stdout);
    }
}

#[test]
fn a_header_that_does_not_fit_is_told_with_its_names() {
    for (what, input, says) in [
        (
            "a name twice",
            "id,v,id\n1,2,3\n",
            "in.csv: the header names column id twice",
        ),
        (
            "a missing name",
            "id,w\n1,2\n",
            "in.csv: the header has no column v, which the job declares; it has id, w",
        ),
        (
            "another case",
            "id,V\n1,2\n",
            "in.csv: the header has no column v, which the job declares; it has id, V",
        ),
        (
            "an empty first line",
            "\nid,v\n1,2\n",
            "in.csv: the header has no column id, which the job declares; its first line is empty",
        ),
        (
            "an open quote",
            "id,\"v\n1,2\n",
            "in.csv: a quote in the header line is still open at its end",
        ),
    ] {
        let room = Room::new(what).file("in.csv", input).job(&of("in.csv"));
        room.fails(&format!("step a, survey: {says}"));
    }
    let room = Room::new("files that differ")
        .file("in-1.csv", "id,v\n1,2\n")
        .file("in-2.csv", "id,w\n1,2\n")
        .job(&of("\"in-*.csv\""));
    room.fails("in-2.csv: its header differs from that of the first file: id,w instead of id,v; all files of a source have the same columns in the same order. `source: {merge: …}` takes files with other columns as inputs");
    let room = Room::new("Latin-1")
        .file("in.csv", b"id,v\xe4\n1,2\n")
        .job(&of("in.csv"));
    room.fails("in.csv: the header line is not valid utf-8; declare the file's `encoding`, or convert it");
}

#[test]
fn line_ends_and_byte_order_marks_that_are_not_the_declared_ones_are_told() {
    let le = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let be = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_be_bytes).collect() };
    let cr = "holds a CR without an LF behind it; where lines end in CR alone declare `newline: cr`";
    let mark = "but is read as";
    let cases: [(&str, Vec<u8>, &str, String); 14] = [
        ("CR", b"id,v\r1,Ann\r2,Bob\r".to_vec(), "", format!("the header (line 1) {cr}")),
        (
            "CR in quotes that end",
            b"\"id\",\"v\"\r\"1\",\"Ann\"\r".to_vec(),
            "",
            format!("the header (line 1) {cr}"),
        ),
        (
            "CR where quotes hold line ends",
            b"# made by hand\n\"id\",\"v\"\r\"1\",\"Ann\"\r".to_vec(),
            ", multiline: true, skip_lines: 1",
            format!("the header (line 2) {cr}"),
        ),
        ("CR and no last field", b"id,v,,\r1,Ann,,\r".to_vec(), "", format!("the header (line 1) {cr}")),
        (
            "CR, all of it skipped",
            b"made by hand\rid,v\r1,Ann\r".to_vec(),
            ", skip_lines: 1",
            format!("what is passed over before the header {cr}"),
        ),
        (
            "LF instead of CR",
            b"id,v\n1,Ann\n".to_vec(),
            ", newline: cr",
            "the header (line 1) holds an LF; where lines end in LF or CRLF declare `newline: lf`".to_string(),
        ),
        (
            "two names that are empty",
            b"id,v,,\n1,Ann,,\n".to_vec(),
            "",
            "the header has two columns without a name; name them, or is it no header (`header: false`), or of lines that end \
             in CR alone (`newline: cr`)?"
                .to_string(),
        ),
        (
            "BE read as LE",
            be("\u{feff}id,v\n1,a\n"),
            ", encoding: utf-16le",
            format!("it begins with the byte order mark of utf-16be (FE FF), {mark} utf-16le; declare `encoding: utf-16be`"),
        ),
        (
            "LE read as BE",
            le("\u{feff}id,v\n1,a\n"),
            ", encoding: utf-16be",
            format!("it begins with the byte order mark of utf-16le (FF FE), {mark} utf-16be; declare `encoding: utf-16le`"),
        ),
        (
            "LE read as UTF-8",
            le("\u{feff}id,v\n1,a\n"),
            "",
            format!("it begins with the byte order mark of utf-16le (FF FE), {mark} utf-8; declare `encoding: utf-16le`"),
        ),
        (
            "BE read as UTF-8 without a header",
            be("\u{feff}1,a\n"),
            ", header: false",
            format!("it begins with the byte order mark of utf-16be (FE FF), {mark} utf-8; declare `encoding: utf-16be`"),
        ),
        (
            "BE read as Latin-1",
            be("\u{feff}id,v\n1,a\n"),
            ", encoding: latin1",
            format!("it begins with the byte order mark of utf-16be (FE FF), {mark} latin1; declare `encoding: utf-16be`"),
        ),
        (
            "BE without a mark read as LE",
            be("id,v\n1,a\n"),
            ", encoding: utf-16le",
            "the header (line 1) holds U+0A00, which is no character but a line end with its bytes in the other order; declare \
             `encoding: utf-16be`"
                .to_string(),
        ),
        (
            "LE without a mark read as BE",
            le("id,v\n1,a\n"),
            ", encoding: utf-16be",
            "the header (line 1) holds U+0A00, which is no character but a line end with its bytes in the other order; declare \
             `encoding: utf-16le`"
                .to_string(),
        ),
    ];
    for (what, input, form, says) in &cases {
        let room = Room::new(what).file("in.csv", input);
        // Names that the header does not show are told with the same words.
        for columns in [COLUMNS, "{}"] {
            let job = copy_of(columns).replace("columns: {}", "quote: '\"'");
            if form.contains("header: false") && columns == "{}" {
                continue;
            }
            let job = job.replace("}}\n    sink", &format!("{form}}}}}\n    sink"));
            fs::write(room.path("job.yaml"), job).expect("written");
            room.fails(&format!("step a, survey: in.csv: {says}"));
        }
    }
}

#[test]
fn line_ends_that_are_not_the_declared_ones_are_told_without_a_header_too() {
    let le = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let be = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_be_bytes).collect() };
    let cr = "holds a CR without an LF behind it; where lines end in CR alone declare `newline: cr`";
    let lf = "holds an LF; where lines end in LF or CRLF declare `newline: lf`";
    let swapped = |other: &str| {
        format!(
            "holds U+0A00, which is no character but a line end with its bytes in the other order; declare `encoding: {other}`"
        )
    };
    let first = |what: &str| format!("the first record (line 1) {what}");
    let passed = format!("what is passed over before the first record {cr}");
    let many = "1,Ann\r".repeat(2_000_000);
    let cases: Vec<(&str, Vec<u8>, &str, String)> = vec![
        ("CR", b"1,Ann\r2,Bob\r".to_vec(), "", first(cr)),
        ("CR and no end", b"1,Ann\r2,Bob".to_vec(), "", first(cr)),
        (
            "CR behind a mark",
            b"\xef\xbb\xbf1,Ann\r2,Bob\r".to_vec(),
            "",
            first(cr),
        ),
        ("CR of 12 MB", many.clone().into_bytes(), "", first(cr)),
        (
            "CR in quotes that end",
            b"\"1\",\"Ann\"\r\"2\",\"Bob\"\r".to_vec(),
            "",
            first(cr),
        ),
        (
            "CR where quotes hold line ends",
            b"\"1\",\"A\nn\"\r\"2\",\"Bob\"\r".to_vec(),
            ", multiline: true",
            first(cr),
        ),
        (
            "CR, a comment first",
            b"# by hand\r1,Ann\r".to_vec(),
            ", comment: \"#\"",
            passed.clone(),
        ),
        (
            "CR, a comment behind lines",
            b"# by\r\n# hand\r1,Ann\r".to_vec(),
            ", comment: \"#\"",
            passed.clone(),
        ),
        (
            "CR, all of it skipped",
            b"by hand\r1,Ann\r".to_vec(),
            ", skip_lines: 1",
            passed,
        ),
        (
            "CR, 12 MB of it skipped",
            many.into_bytes(),
            ", skip_lines: 1",
            format!("the first line {cr}"),
        ),
        (
            "LF instead of CR",
            b"1,Ann\n2,Bob\n".to_vec(),
            ", newline: cr",
            first(lf),
        ),
        (
            "CR in UTF-16",
            le("\u{feff}1,Ann\r2,Bob\r"),
            ", encoding: utf-16",
            first(cr),
        ),
        (
            "BE without a mark read as LE",
            be("1,a\n2,b\n"),
            ", encoding: utf-16le",
            first(&swapped("utf-16be")),
        ),
        (
            "LE without a mark read as BE",
            le("1,a\n2,b\n"),
            ", encoding: utf-16be",
            first(&swapped("utf-16le")),
        ),
    ];
    for (what, input, form, says) in &cases {
        let room = Room::new(what).file("in.csv", input);
        for columns in [COLUMNS, "{all: string}"] {
            let job = copy_of(columns).replace("}}\n    sink", &format!(", header: false{form}}}}}\n    sink"));
            fs::write(room.path("job.yaml"), job).expect("written");
            room.fails(&format!("step a, survey: in.csv: {says}"));
        }
    }
}

/// What the rule above must let pass.
#[test]
fn a_cr_within_a_record_is_none_of_its_ends() {
    for (what, input, form, rows) in [
        ("in quotes", "1,\"a\rb\"", "", &["1,\"a\rb\""] as &[&str]),
        ("in a record that ends", "1,a\rb\n2,c\n", "", &["1,\"a\rb\"", "2,c"]),
        ("at the end", "1,a\r", "", &["1,a"]),
        ("of CRLF", "1,a\r\n2,b\r\n", "", &["1,a", "2,b"]),
        ("declared", "1,a\r2,b\r", ", newline: cr", &["1,a", "2,b"]),
        ("nothing but a comment", "# c\r\n# d", ", comment: \"#\"", &[]),
        ("fewer lines than are skipped", "a\r\nb", ", skip_lines: 5", &[]),
    ] {
        let job = copy_of(COLUMNS).replace("}}\n    sink", &format!(", header: false{form}}}}}\n    sink"));
        let room = Room::new(what).file("in.csv", input).job(&job);
        room.makes(rows);
    }
}

#[test]
fn a_cr_in_the_quotes_of_a_name_is_part_of_it() {
    let room = Room::new("CR in quotes")
        .file("in.csv", "id,\"v\rw\"\n1,2\n")
        .job(&copy_of("{id: int64}"));
    assert_eq!(room.gapless(&["run", "job.yaml"]).code, Some(0));
    let room = Room::new("CR at the end")
        .file("in.csv", "id\r")
        .job(&copy_of("{id: int64}"));
    room.makes(&[]);
}

/// A file of 1 GiB, of which the disk holds next to nothing.
fn of_one_gib(room: &Room, path: &str, head: &[u8]) {
    let mut file = File::create(room.path(path)).expect("made");
    file.write_all(head).expect("written");
    file.seek(SeekFrom::Start((1 << 30) - 1)).expect("sought");
    file.write_all(b"\n").expect("written");
}

#[test]
fn a_line_of_one_gib_is_refused_in_bounded_memory() {
    for (what, head, says) in [
        (
            "a record",
            &b"id,v\n1,2\n"[..],
            "in.csv: the line at byte 9 has no end within 16777216 bytes; this is no CSV file, or a line end other than LF or CRLF is used",
        ),
        (
            "the header",
            b"",
            "in.csv: no line end within the first 1048576 bytes, so it is not known where records begin; is this CSV?",
        ),
    ] {
        let room = Room::new(what).job(&of("in.csv"));
        of_one_gib(&room, "in.csv", head);
        let ended = room.fails(says);
        assert!(ended.peak_mib < PEAK_MIB, "{what}: {} MiB", ended.peak_mib);
        let tolerant = of("in.csv") + "    on_error: {reject: {limit: unlimited}}\n";
        fs::write(room.path("job.yaml"), tolerant).expect("written");
        let ended = room.fails(says);
        assert!(ended.peak_mib < PEAK_MIB, "{what}, tolerated: {} MiB", ended.peak_mib);
    }
}

#[test]
fn a_file_that_grows_when_it_is_unpacked_takes_bounded_memory() {
    let zeros = vec![0; 1 << 20];
    let mut packer = zstd::Encoder::new(Vec::new(), 1).expect("made");
    packer.write_all(b"id,v\n1,2\n").expect("packed");
    (0..4096).for_each(|_| packer.write_all(&zeros).expect("packed"));
    let bomb = packer.finish().expect("packed");
    assert!(bomb.len() < 1 << 20, "4 GiB in {} bytes", bomb.len());
    let room = Room::new("4 GiB in a file of kilobytes")
        .file("in.csv.zst", bomb)
        .job(&of("in.csv.zst"));
    let ended = room.fails("in.csv.zst: the line at byte 9 (line 3) has no end within 16777216 bytes");
    assert!(ended.peak_mib < PEAK_MIB, "{} MiB", ended.peak_mib);

    // A window of 1 GiB is what its reader would have to hold.
    let mut packer = zstd::Encoder::new(Vec::new(), 1).expect("made");
    packer.long_distance_matching(true).expect("set");
    packer.window_log(30).expect("set");
    packer.write_all(b"id,v\n1,2\n").expect("packed");
    let room = Room::new("a window of 1 GiB").file("in.csv.zst", packer.finish().expect("packed"));
    let room = room.job(&of("in.csv.zst"));
    let ended = room.fails("in.csv.zst: the compressed file needs more than 128 MiB to be read; compress it again without a larger window (`zstd --long`)");
    assert!(ended.peak_mib < PEAK_MIB, "{} MiB", ended.peak_mib);
}

#[test]
fn many_records_out_of_a_small_file_take_bounded_memory() {
    let lines = "1,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
        .repeat(10_000);
    let mut packer = zstd::Encoder::new(Vec::new(), 1).expect("made");
    packer.write_all(b"id,v\n").expect("packed");
    (0..600).for_each(|_| packer.write_all(lines.as_bytes()).expect("packed"));
    let bomb = packer.finish().expect("packed");
    assert!(bomb.len() < 1 << 20, "570 MiB in {} bytes", bomb.len());
    let room = Room::new("570 MiB of records").file("in.csv.zst", bomb);
    let room = room.job(&of("in.csv.zst").replace("{csv: {path: out/a}}", "discard"));
    let ended = room.gapless(&["run", "job.yaml"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("6,000,000"), "{}", ended.stdout);
    assert!(ended.peak_mib < PEAK_MIB, "{} MiB", ended.peak_mib);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(text.as_bytes()).expect("packed");
    packer.finish().expect("packed")
}

#[test]
fn packed_files_that_are_cut_off_or_none_are_told() {
    let text: String = (0..200_000).map(|n| format!("{n},{}\n", n * 7919 % 10_007)).collect();
    let text = format!("id,v\n{text}");
    let (gz, zst) = (gzip(&text), zstd::encode_all(text.as_bytes(), 1).expect("packed"));
    for (what, path, bytes, says) in [
        (
            "gzip cut off",
            "in.csv.gz",
            &gz[..gz.len() - 1000],
            "in.csv.gz: the compressed file ends too early: it is cut off; copy or make the file again",
        ),
        (
            "gzip cut off at its sum",
            "in.csv.gz",
            &gz[..gz.len() - 4],
            "in.csv.gz: the compressed file ends too early",
        ),
        (
            "zstd cut off",
            "in.csv.zst",
            &zst[..zst.len() - 1000],
            "in.csv.zst: the compressed file ends too early",
        ),
        (
            "gzip with something behind it",
            "in.csv.gz",
            &[&gz[..], b"<html>no gzip</html>"].concat(),
            &format!(
                "in.csv.gz: its gzip data ends at byte {}, and what stands behind it is none («<html>no gzip</h»); cut the file off there",
                gz.len()
            ),
        ),
        (
            "zstd with zeros behind it",
            "in.csv.zst",
            &[&zst[..], &[0; 512]].concat(),
            &format!(
                "in.csv.zst: its zstd data ends at byte {}, and what stands behind it is none (zeros)",
                zst.len()
            ),
        ),
        (
            "no gzip",
            "in.csv.gz",
            b"id,v\n1,2\n",
            "in.csv.gz: this is no gzip file, though its name or `compression` says so; name what it is with `compression`",
        ),
        (
            "no zstd",
            "in.csv.zst",
            &gz[..],
            "in.csv.zst: this is no zstd file, though its name or `compression` says so",
        ),
    ] {
        Room::new(what).file(path, bytes).job(&of(path)).fails(says);
    }
    let mut damaged = gz.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xa5);
    let room = Room::new("gzip damaged")
        .file("in.csv.gz", damaged)
        .job(&of("in.csv.gz"));
    room.fails("in.csv.gz: the compressed file is damaged: ");
}

#[test]
fn files_that_are_no_text_are_told_as_what_they_are() {
    let (gz, zst) = (
        gzip("id,v\n1,2\n"),
        zstd::encode_all(&b"id,v\n1,2\n"[..], 1).expect("packed"),
    );
    let parquet = parquet("SELECT n AS id, n AS v FROM input");
    let avro = made("avro", "SELECT n AS id, n AS v FROM input");
    let utf16: Vec<u8> = "\u{feff}id,v\n1,2\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let sources = [
        "csv: {path: in}",
        "csv: {path: in, header: false, columns: {id: int64, v: int64}}",
        "csv: {path: in, encoding: latin1}",
        "ndjson: {path: in}",
        "ndjson: {path: in, columns: {id: int64}}",
        "records: {path: in, fields: [{name: id, width: 1}]}",
    ];
    for source in sources {
        for (bytes, says) in [
            (
                &gz,
                "in: this is gzip data, and is read as plain text; name it `….gz`, or declare `compression: gzip`",
            ),
            (
                &zst,
                "in: this is zstd data, and is read as plain text; name it `….zst`, or declare `compression: zstd`",
            ),
            (
                &parquet,
                "in: this is a Parquet file, and is read as plain text; read it with `source: {parquet: …}`",
            ),
            (
                &avro,
                "in: this is an Avro file, and is read as plain text; read it with `source: {avro: …}`",
            ),
            (&utf16, "in: it begins with "),
        ] {
            let job = format!(
                "job: j\nsteps:\n  - name: a\n    source: {{{source}}}\n    sink: {{csv: {{path: out/a}}}}\n    on_error: {{reject: {{limit: 1000}}}}\n"
            );
            Room::new(source).file("in", bytes).job(&job).fails(says);
        }
    }
    // Letters that formats begin with are letters.
    Room::new("a column of this name")
        .file("in.csv", "PAR1,PK\n1,2\n")
        .job(&copy_of("{PAR1: int64}"))
        .makes(&["1,2"]);
}

/// Makes a file of generated numbers, with the program itself, and gives its bytes.
fn made(format: &str, sql: &str) -> Vec<u8> {
    let job = format!(
        "job: make\nsteps:\n  - name: a\n    source: {{sequence: {{from: 0, to: 20000}}}}\n    transform: {{sql: \"{sql}\"}}\n    sink: {{{format}: {{path: out/a, compression: none, files: 1}}}}\n"
    );
    let room = Room::new("a file is made").job(&job);
    let ended = room.gapless(&["run", "job.yaml"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let made = room
        .paths()
        .into_iter()
        .find(|path| path.ends_with(&format!(".{format}")));
    fs::read(room.path(&made.expect("a file"))).expect("readable")
}

fn parquet(sql: &str) -> Vec<u8> {
    made("parquet", sql)
}

#[test]
fn avro_that_is_cut_off_damaged_or_of_two_kinds_is_told() {
    let job =
        "job: j\nsteps:\n  - name: a\n    source: {avro: {path: \"in-*.avro\"}}\n    sink: {csv: {path: out/a}}\n";
    let good = made("avro", "SELECT n AS id, n * 3 AS v FROM input");
    let told = |what: &str, bytes: &[u8], says: &str| {
        Room::new(what).file("in-1.avro", bytes).job(job).fails(says);
    };
    let len = good.len();
    let no_end = format!(
        "step a, survey: in-1.avro: its last 16 bytes, from byte {} on, are not its sync marker",
        len - 116
    );
    told("without an end", &good[..len - 100], &no_end);
    told(
        "within the header",
        &good[..50],
        "step a, survey: in-1.avro: the header ends at byte 50, with the file",
    );
    told("nothing", b"", "step a, survey: in-1.avro: the file is empty");
    told(
        "text",
        b"id,v\n1,2\n",
        "step a, survey: in-1.avro: this is no Avro object container file",
    );
    let marker = good[len - 16..].to_vec();
    // Behind the header and behind each block; the second one is that of the first block.
    let markers: Vec<usize> = (0..=len - 16).filter(|at| good[*at..at + 16] == marker[..]).collect();
    assert!(markers.len() > 2, "several blocks");
    let (first, second) = (markers[0] + 16, markers[1]);
    let mut damaged = good.clone();
    damaged[second] ^= 1;
    let bad_marker = format!("in-1.avro: the block at byte {first} is damaged: behind its ");
    told("a bad sync marker", &damaged, &bad_marker);
    let mut rows = good.clone();
    // A value of more than 64 bits.
    rows[first + 6..first + 40].fill(0xff);
    told(
        "a damaged block",
        &rows,
        &format!("in-1.avro: the block at byte {first} is damaged: row "),
    );
    let codec = good.windows(4).position(|bytes| bytes == b"null").expect("its codec");
    let mut unknown = good.clone();
    unknown[codec..codec + 4].copy_from_slice(b"lzma");
    told(
        "an unknown codec",
        &unknown,
        "in-1.avro: its blocks are compressed by the codec `lzma` (named before byte ",
    );
    for (what, sql, says) in [
        (
            "another type",
            "SELECT CAST(n AS VARCHAR) AS id, n * 3 AS v FROM input",
            "in-2.avro: its columns differ from those of the first file: column id is string instead of int64; all files of a source have the same columns",
        ),
        (
            "a column less",
            "SELECT n AS id FROM input",
            "in-2.avro: its columns differ from those of the first file: column v is missing",
        ),
    ] {
        let room = Room::new(what)
            .file("in-1.avro", &good)
            .file("in-2.avro", made("avro", sql))
            .job(job);
        room.fails(&format!("step a, survey: {says}"));
    }
    let job = "job: j\nsteps:\n  - name: a\n    source: {sequence: {from: 0, to: 9}}\n    transform: {sql: \"SELECT n * 2 FROM input\"}\n    sink: {avro: {path: out/a}}\n";
    let room = Room::new("a name that is none in Avro").job(job);
    let run = ["run", "job.yaml"];
    room.refuses(
        &run,
        3,
        "names in Avro are letters, digits and `_`, and begin with no digit; name it so (AS …)",
    );
}

/// An Avro file without a block, of records with these fields.
fn avro_with(fields: &str) -> Vec<u8> {
    let schema = format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#);
    let long = |value: usize, file: &mut Vec<u8>| {
        let mut rest = value << 1;
        while rest >= 0x80 {
            file.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        file.push(rest as u8);
    };
    let mut file = b"Obj\x01".to_vec();
    long(1, &mut file);
    for text in ["avro.schema", &schema] {
        long(text.len(), &mut file);
        file.extend_from_slice(text.as_bytes());
    }
    long(0, &mut file);
    file.extend_from_slice(&[7; 16]);
    file
}

#[test]
fn avro_schemas_that_come_to_more_than_they_look_like_are_told() {
    let job = "job: j\nsteps:\n  - name: a\n    source: {avro: {path: in.avro}}\n    sink: {csv: {path: out/a}}\n";
    // Each record of two of the one before, or of one.
    let records = |count: usize, fields: &str| {
        let record = |number: usize| {
            let before = format!("r{}", number.saturating_sub(1));
            let fields = match number {
                0 => r#"{"name":"a","type":"int"}"#.to_string(),
                _ => fields.replace("BEFORE", &before),
            };
            format!(r#"{{"name":"f{number}","type":{{"type":"record","name":"r{number}","fields":[{fields}]}}}}"#)
        };
        avro_with(&(0..count).map(record).collect::<Vec<_>>().join(","))
    };
    let two = r#"{"name":"a","type":"BEFORE"},{"name":"b","type":"BEFORE"}"#;
    let one = r#"{"name":"a","type":"BEFORE"}"#;
    let large = r#"{"name":"a","type":["null",{"type":"fixed","name":"f","size":2000000}]}"#;
    for (what, bytes, says) in [
        (
            "2^40 columns",
            records(40, two),
            "its schema has more than 10000 columns",
        ),
        (
            "3000 deep by names",
            records(3000, one),
            "its schema nests types more than 64 deep",
        ),
        (
            "a large fixed",
            avro_with(large),
            "its schema has records whose values of one size take more than 1 MiB",
        ),
    ] {
        let room = Room::new(what).file("in.avro", bytes).job(job);
        room.fails(&format!("step a, survey: in.avro: {says}"));
    }
}

#[test]
fn parquet_that_is_cut_off_damaged_or_of_two_kinds_is_told() {
    let job = "job: j\nsteps:\n  - name: a\n    source: {parquet: {path: \"in-*.parquet\"}}\n    sink: {csv: {path: out/a}}\n";
    let good = parquet("SELECT n AS id, n * 3 AS v FROM input");
    for (what, bytes) in [
        ("without an end", &good[..good.len() - 100]),
        ("half", &good[..good.len() / 2]),
        ("nothing", &[]),
        ("text", b"id,v\n1,2\n"),
    ] {
        let room = Room::new(what).file("in-1.parquet", bytes).job(job);
        room.fails("step a, survey: in-1.parquet: not a readable Parquet file: ");
    }
    let mut damaged = good.clone();
    damaged[4..40].fill(0xff);
    let room = Room::new("a damaged page").file("in-1.parquet", damaged).job(job);
    room.fails("in-1.parquet: row group 0 is damaged: ");
    for (what, sql, says) in [
        (
            "another type",
            "SELECT CAST(n AS VARCHAR) AS id, n * 3 AS v FROM input",
            "in-2.parquet: its columns differ from those of the first file: column id is string instead of int64; all files of a source have the same columns",
        ),
        (
            "a column less",
            "SELECT n AS id FROM input",
            "in-2.parquet: its columns differ from those of the first file: column v is missing",
        ),
        (
            "another name",
            "SELECT n AS id, n AS w FROM input",
            "in-2.parquet: its columns differ from those of the first file: column ",
        ),
    ] {
        let room = Room::new(what)
            .file("in-1.parquet", &good)
            .file("in-2.parquet", parquet(sql))
            .job(job);
        room.fails(&format!("step a, survey: {says}"));
    }
}

/// The plan stands and work is left when a run has failed. (What changes while a run goes is in `tests/anew.rs`.)
#[test]
fn input_that_is_changed_or_deleted_after_planning_is_told_and_the_run_goes_on_with_what_there_is() {
    let text = |rows: std::ops::Range<u32>| -> String { rows.map(|n| format!("{n},x\n")).collect() };
    // The first file has a record that is refused: so the first run plans both, and fails.
    let bad = format!("id,v\n{}z,x\n", text(0..100));
    let job = of("\"in-*.csv\"") + "    partition: files\n    on_error: {partition_failed: stop}\n";
    let room = Room::new("changed or deleted")
        .file("in-1.csv", &bad)
        .file("in-2.csv", "id,v\n1,y\n")
        .job(&job);
    room.fails("in-1.csv, line 102: parse: column id: «z» is not a whole number");
    let kept = room.path("kept");
    fs::rename(room.path("in-1.csv"), &kept).expect("moved");
    let first = room.path("in-1.csv");
    // Another file is read as what it is, never as the rest of the former one.
    fs::write(&first, "id,v\n2z,x\n").expect("written");
    room.fails("in-1.csv, line 2: parse: column id: «2z» is not a whole number");
    fs::remove_file(&first).expect("removed");
    room.makes(&["1,y"]);
}

/// A file that is listed by its name and is gone fails the run, which keeps its plan for when it is there again.
#[test]
fn input_that_is_deleted_after_planning_may_come_back() {
    let text = |rows: std::ops::Range<u32>| -> String { rows.map(|n| format!("{n},x\n")).collect() };
    let bad = format!("id,v\n{}z,x\n", text(0..100));
    let job = of("[in-1.csv, in-2.csv]") + "    partition: files\n    on_error: {partition_failed: stop}\n";
    let room = Room::new("deleted")
        .file("in-1.csv", &bad)
        .file("in-2.csv", "id,v\n1,y\n")
        .job(&job);
    room.fails("in-1.csv, line 102: parse: column id: «z» is not a whole number");
    let kept = room.path("kept");
    fs::rename(room.path("in-1.csv"), &kept).expect("moved");
    room.fails("in-1.csv: no such file");
    fs::rename(&kept, room.path("in-1.csv")).expect("moved back");
    room.fails("in-1.csv, line 102: parse: ");
}

/// One partition reads three files, of which one is written again with as many bytes.
#[test]
fn verify_names_the_file_that_was_changed() {
    let csv = |name: &str| format!("csv: {{path: {name}, columns: {COLUMNS}}}");
    let merged = format!(
        "merge: {{inputs: [{{{}}}, {{{}}}, {{{}}}]}}",
        csv("in-1.csv"),
        csv("in-2.csv"),
        csv("in-3.csv")
    );
    for (what, source) in [("a glob", csv("\"in-*.csv\"")), ("a merge", merged)] {
        let job = format!(
            "job: j\nsteps:\n  - name: a\n    source: {{{source}}}\n    partition: {{count: 1}}\n    sink: {{csv: {{path: out/a}}}}\n"
        );
        let room = Room::new(what)
            .file("in-1.csv", "id,v\n1,a\n")
            .file("in-2.csv", "id,v\n2,b\n")
            .file("in-3.csv", "id,v\n3,c\n")
            .job(&job);
        room.makes(&["1,a", "2,b", "3,c"]);
        let verify = ["verify", "--certificate", "out/a"];
        assert_eq!(room.gapless(&verify).code, Some(0), "{what}");
        fs::write(room.path("in-2.csv"), "id,v\n2,x\n").expect("written");
        let ended = room.gapless(&verify);
        assert_eq!(ended.code, Some(1), "{what}: {}", ended.stderr);
        let says = "a: in-2.csv, partition 0 [0, 27): as many records as were read, but not the same ones";
        assert!(ended.stderr.contains(says), "{what}: {}", ended.stderr);
    }
}

#[test]
fn a_look_up_that_cannot_be_read_whole_fails_the_step() {
    let job = "job: j\nsteps:\n  - name: a\n    source: {csv: {path: in.csv, columns: {id: int64, v: string}}}\n    lookups: {names: {csv: {path: names.csv, columns: {id: int64, name: string}}}}\n    transform: {sql: \"SELECT input.id, names.name FROM input LEFT JOIN names ON names.id = input.id\"}\n    sink: {csv: {path: out/a}}\n";
    let room = Room::new("no look-up").file("in.csv", "id,v\n1,a\n").job(job);
    room.fails("look-up names: names.csv: no such file");
    let room = Room::new("a bad record of a look-up")
        .file("in.csv", "id,v\n1,a\n")
        .file("names.csv", "id,name\n1,one\nx,two\n")
        .job(job);
    room.fails("look-up names: names.csv, line 3: column id: «x» is not a whole number");

    // A key that is text without a declaration, and compared with numbers: no record is to blame, whatever is tolerated.
    let untyped = job.replace("names.csv, columns: {id: int64, name: string}", "names.csv")
        + "    on_error: {reject: {limit: unlimited}}\n";
    let room = Room::new("a text among the keys of a look-up")
        .file("in.csv", "id,v\n1,a\n")
        .file("names.csv", "id,name\n1,one\nx,two\n")
        .job(&untyped);
    room.fails("no record was read yet, so it is a value of a look-up (there is «names»): mend it there, declare the type of its column, or convert it with try_cast");
}

#[test]
fn a_pipe_for_a_job_file_is_read_and_bounded() {
    let room = Room::new("endless stdin");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gapless"))
        .args(["validate", "-"])
        .current_dir(room.path("."))
        .stdin(Stdio::from(File::open("/dev/zero").expect("there")))
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let status = child.wait().expect("ended");
    assert_eq!(status.code(), Some(3));
}
