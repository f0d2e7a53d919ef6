//! The servers of testkit start, answer, start again, and die with whoever started them.

#![allow(clippy::unwrap_used)]

mod death;
mod kafka;
mod kube_api;
mod postgres;
mod redis;
mod tokens;
mod wait;

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends `request` and answers what comes back first.
async fn talk(port: u16, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(request).await?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await?;
    answer.truncate(length);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn is_listening(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .is_ok()
}

/// Whether a process is there; one that ended and wasn't waited for (a zombie) isn't.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}
