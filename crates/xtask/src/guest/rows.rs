//! A service to lose rows with: numbers in a file, each acknowledged when it is durable.
//!
//! A client says `add N` and hears `ok N`, or says `list` and hears every number and `end`.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::{self, sleep};
use std::time::Duration;

use crate::failure::{Context, Failure, Outcome};

/// Where the service is found.
pub(super) const PORT: u16 = 7700;
/// The group's address.
pub(super) const ADDRESS: &str = "10.77.0.100";
/// An answer that takes longer is asked for again, on a new connection.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves the rows in `folder` until killed.
pub(super) fn serve(folder: &Path) -> Outcome {
    let path = folder.join("rows");
    let listener = TcpListener::bind(("0.0.0.0", PORT)).context("listen for clients")?;
    for client in listener.incoming() {
        let client = client.context("accept a client")?;
        let path = path.clone();
        thread::spawn(move || {
            if let Err(error) = answer(&client, &path) {
                eprintln!("a client is gone: {error}");
            }
        });
    }
    Ok(())
}

fn answer(client: &TcpStream, path: &Path) -> io::Result<()> {
    let mut rows = OpenOptions::new().create(true).append(true).open(path)?;
    let mut out = client;
    for line in BufReader::new(client).lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("add", number)) => {
                writeln!(rows, "{number}")?;
                rows.sync_data()?;
                writeln!(out, "ok {number}")?;
            }
            _ => {
                let all = std::fs::read_to_string(path)?;
                writeln!(out, "{all}end")?;
            }
        }
    }
    Ok(())
}

/// Adds rows until killed; those that were acknowledged are in `journal`.
pub(super) fn add(journal: &Path) -> Outcome {
    let mut journal = File::create(journal).context("create the journal")?;
    let mut number: u64 = 1;
    loop {
        // Whatever goes wrong: the same number again, on a new connection.
        if add_some(&mut journal, &mut number).is_err() {
            sleep(PAUSE);
        }
    }
}

fn add_some(journal: &mut File, number: &mut u64) -> io::Result<()> {
    let stream = connect()?;
    let mut answers = BufReader::new(&stream).lines();
    loop {
        let mut out = &stream;
        writeln!(out, "add {number}")?;
        let line = answers.next().ok_or(io::ErrorKind::UnexpectedEof)??;
        if line != format!("ok {number}") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        writeln!(journal, "{number}")?;
        *number += 1;
    }
}

/// Looks for every row that `journal` notes.
pub(super) fn find(journal: &Path) -> Outcome {
    let noted = std::fs::read_to_string(journal).context("read the journal")?;
    let found = list().context("ask the service for its rows")?;
    let lost = noted.lines().filter(|row| !found.contains(*row)).count();
    println!(
        "{} acknowledged, {} found, {lost} lost",
        noted.lines().count(),
        found.len()
    );
    match lost {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{lost} acknowledged rows are lost"))),
    }
}

fn list() -> io::Result<BTreeSet<String>> {
    let stream = connect()?;
    let mut out = &stream;
    writeln!(out, "list")?;
    let mut found = BTreeSet::new();
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if line == "end" {
            return Ok(found);
        }
        found.insert(line);
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn connect() -> io::Result<TcpStream> {
    let address: SocketAddr = format!("{ADDRESS}:{PORT}")
        .parse()
        .map_err(io::Error::other)?;
    let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
