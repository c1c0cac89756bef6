//! A process that is asked line by line: threads of its own hold its pipes, so that neither side can block the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the process did.
pub enum Event {
    /// It wrote a line.
    Line(Vec<u8>),
    /// It closed its output, or cannot be read.
    Ended,
}

/// The longest line that is read.
const LONGEST: u64 = 64 << 20;

/// How much of what it says on its standard error is kept.
const KEPT: usize = 2000;

/// How long it may take to end once its input has.
const PATIENCE: Duration = Duration::from_millis(500);

/// A running process.
pub struct Process {
    child: Child,
    input: Option<Sender<Vec<u8>>>,
    /// What it does.
    pub events: Receiver<Event>,
    errors: Arc<Mutex<Vec<u8>>>,
    errors_end: Receiver<()>,
}

impl Process {
    /// Starts it. A Ctrl-C at the terminal does not reach it: when it ends is for this side to say.
    pub fn start(words: &[String]) -> std::io::Result<Self> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (input, to_write) = channel::<Vec<u8>>();
        let (tell, events) = channel();
        let (ended, errors_end) = channel();
        let errors = Arc::new(Mutex::new(Vec::new()));
        // They end with the pipes. What cannot be written shows in what is read: the process is gone.
        thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                to_write.into_iter().try_for_each(|line| stdin.write_all(&line).and_then(|()| stdin.flush()))
            } else {
                Ok(())
            }
        });
        thread::spawn(move || {
            let mut stdout = stdout.map(BufReader::new);
            loop {
                let mut line = Vec::new();
                let read = stdout.as_mut().map_or(Ok(0), |s| s.take(LONGEST).read_until(b'\n', &mut line));
                let event = match read {
                    Ok(1..) => Event::Line(line),
                    _ => Event::Ended,
                };
                let last = matches!(event, Event::Ended);
                if tell.send(event).is_err() || last {
                    break;
                }
            }
        });
        let tail = errors.clone();
        thread::spawn(move || {
            let mut stderr = stderr.map(BufReader::new);
            let mut line = Vec::new();
            while let Some(Ok(1..)) = stderr.as_mut().map(|s| s.take(LONGEST).read_until(b'\n', &mut line)) {
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                tail.append(&mut line);
                let over = tail.len().saturating_sub(KEPT);
                tail.drain(..over);
            }
            drop(ended);
        });
        Ok(Process { child, input: Some(input), events, errors, errors_end })
    }

    /// Hands it a line. Of what a dead process is told, the events tell.
    pub fn tell(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        if let Some(input) = &self.input {
            // The receiver is gone with the process.
            let _ = input.send(line);
        }
    }

    /// How it ended, in words, with the last line of its standard error; of a process that closed its output.
    pub fn end(&mut self) -> String {
        let how = match self.wait() {
            Some(status) => format!("it ended ({status})"),
            None => "it closed its output and goes on".to_owned(),
        };
        how + &self.last_words()
    }

    /// The last line of its standard error, as the end of a sentence; empty where it said nothing.
    pub fn last_words(&self) -> String {
        // Until it closes, which a child of its own may hold up.
        let _ = self.errors_end.recv_timeout(Duration::from_millis(100));
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&errors);
        match text.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) => format!("; its standard error ends: {}", line.trim()),
            None => String::new(),
        }
    }

    /// Waits a little for its end.
    fn wait(&mut self) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                ended => return ended.ok().flatten(),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of its input asks it to end; what does not is killed. Either way it is waited for.
        self.input = None;
        if self.wait().is_none() {
            // With what it started itself, where the system has the command; then what is left of it.
            #[cfg(unix)]
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
