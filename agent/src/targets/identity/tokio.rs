// SPDX-License-Identifier: Apache-2.0 OR MIT
//! tokio: from a connection to the task that reads it, and from hyper's task of a client's connection to the one that waits.
//!
//! In: a process linked with tokio, stripped or not, and what its epoll instances know their sockets by. Out: a [`Tokio`].
//! Nothing is taken from a release, since the compiler orders fields as it likes: the reader's waker is where most sockets have
//! one, and the sender of a response where a call that is under way has it. A task is known by its table of functions and offsets, a
//! waker by the one table that all of them share. Work of `spawn_blocking` is where threads that do it have it on their stacks. The
//! program that shows none of it, or calls nobody, has no layout.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::Read,
    path::Path,
    thread,
    time::Duration,
};

use spantap_common::identity::{Blocking, Client, Tokio};

use super::{Memory, Unknown, memory::Mapping};
use crate::kernel::features::release;

/// Looks for the layout; where it is not the first look, which the first span waits for, several times in a row.
pub(super) fn find(process: &Path, memory: &Memory, is_first: bool) -> Result<Tokio, Unknown> {
    if !tells_what_epoll_knows(&release()) {
        return Err(Unknown::Never("kernels before 5.12 do not show the probes which task reads a socket"));
    }
    let sockets = sockets(process)?;
    let image = Image::of(memory).ok_or(Unknown::NotYet("it has mapped no file"))?;
    image.layout(&sockets, if is_first { 1 } else { MOST_TRIES })
}

/// Whether a kernel of this release has `file.f_ep`, which leads the probes there.
fn tells_what_epoll_knows(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|number| number.trim().parse::<u32>().ok());
    numbers.next().is_some_and(|major| (major, numbers.next().unwrap_or_default()) >= (5, 12))
}

/// What two looks into the same process have found, `now` and `before`: a kind of client shows only while it is used.
pub(super) fn joined(now: Tokio, before: Tokio) -> Tokio {
    if (now.wakers, now.reader, now.id, now.trailer) != (before.wakers, before.reader, before.id, before.trailer) {
        return now;
    }
    let again = |client: Client| now.clients.into_iter().find(|seen| seen.future == client.future).unwrap_or(client);
    let is_new = |client: &Client| before.clients.iter().all(|known| known.future != client.future);
    let known = before.clients.into_iter().filter(|client| client.future != 0).map(again);
    let mut all = known.chain(now.clients.into_iter().filter(is_new));
    let blocking = if now.blocking.task == 0 { before.blocking } else { now.blocking };
    Tokio { blocking, clients: [(); Tokio::CLIENTS].map(|()| all.next().unwrap_or_default()), ..now }
}

/// Whether there is room for more.
pub(super) fn may_grow(layout: &Tokio) -> bool {
    layout.blocking.task == 0 || layout.clients.iter().any(|client| client.future == 0)
}

/// The addresses that the process's epoll instances know its sockets by.
fn sockets(process: &Path) -> Result<Vec<u64>, Unknown> {
    let descriptors =
        fs::read_dir(process.join("fd")).map_err(|_| Unknown::NotYet("its descriptors cannot be read"))?;
    let descriptors: Vec<_> = descriptors.flatten().take(MOST_DESCRIPTORS + 1).collect();
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(Unknown::NotYet("it has too many descriptors open to look at each"));
    }
    let polls = descriptors.iter().filter(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]")
    });
    let mut sockets = HashSet::new();
    for poll in polls.take(MOST_POLLS) {
        let mut text = String::new();
        if let Ok(file) = File::open(process.join("fdinfo").join(poll.file_name())) {
            let _ended = file.take(MOST_TEXT).read_to_string(&mut text);
        }
        sockets.extend(text.lines().filter_map(known_by));
    }
    if sockets.is_empty() {
        Err(Unknown::NotYet("it waits for no socket yet"))
    } else {
        Ok(sockets.into_iter().collect())
    }
}

/// The address in a line such as `tfd:       14 events: 8000201d data:     7fd85c020f00  pos:0 ino:85b4f0 sdev:9`. tokio gives that of a
/// `ScheduledIo`, which has cache lines of its own since 1.32; 0 and 1 are events of tokio's own.
fn known_by(line: &str) -> Option<u64> {
    let (_, data) = line.strip_prefix("tfd:")?.split_once("data:")?;
    let address = u64::from_str_radix(data.split_whitespace().next()?, 16).ok()?;
    is_address(address, CACHE_LINES).then_some(address)
}

/// The executable as it is mapped: its code, and everything else of it.
struct Image<'a> {
    memory: &'a Memory,
    code: Vec<(u64, u64)>,
    data: Vec<(u64, u64)>,
}

/// What is in a task's `Vtable`, by the number of the word.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Places {
    id: u8,
    trailer: u8,
}

/// A task that was seen to read a socket.
#[derive(Clone, Copy, Debug)]
struct Reader {
    task: u64,
    vtable: u64,
    /// Offsets of its id and of its trailer: its future is in between.
    future: (u64, u64),
    places: Places,
}

impl<'a> Image<'a> {
    fn of(memory: &'a Memory) -> Option<Self> {
        let name = memory.mappings.iter().map(|mapping| &mapping.name).find(|name| name.starts_with('/'))?;
        let mapped = || memory.mappings.iter().filter(|mapping| mapping.name == *name);
        let range = |mapping: &Mapping| (mapping.start, mapping.end);
        let code = mapped().filter(|mapping| mapping.executable).map(range).collect();
        let data = mapped().filter(|mapping| !mapping.executable).map(range).collect();
        Some(Self { memory, code, data })
    }

    fn layout(&self, sockets: &[u64], tries: u32) -> Result<Tokio, Unknown> {
        // Where the wakers are, and who shares which table: (offset, table).
        let mut votes: HashMap<(u16, u64), Vec<Reader>> = HashMap::new();
        let mut tables = HashMap::new();
        for socket in sockets.iter().take(MOST_SOCKETS) {
            let words = self.memory.words(*socket, SCHEDULED_IO / 8);
            for (index, pair) in words.windows(2).enumerate() {
                let [table, task] = *pair else { continue };
                if *tables.entry(table).or_insert_with(|| self.is_waker_table(table))
                    && let Some(reader) = self.task(task)
                {
                    votes.entry((8 * index as u16, table)).or_default().push(reader);
                }
            }
        }
        let mut votes: Vec<_> = votes.into_iter().collect();
        votes.sort_by_key(|(place, readers)| (usize::MAX - readers.len(), *place));
        let second = votes.get(1).map_or(0, |(_, readers)| readers.len());
        let ((reader, wakers), readers) = match votes.into_iter().next() {
            // Who writes leaves a waker too, but only while the other end is slow.
            Some(first) if first.1.len() >= LEAST_READERS && first.1.len() > 2 * second => first,
            Some(_) => return Err(Unknown::NotYet("too few of its tasks wait for a connection")),
            None => return Err(Unknown::NotYet("no task of tokio's waits for one of its sockets")),
        };
        let places: HashSet<Places> = readers.iter().map(|reader| reader.places).collect();
        let [Places { id, trailer }] = *places.into_iter().collect::<Vec<_>>() else {
            return Err(Unknown::Never("its tasks differ in where they have their numbers"));
        };
        let mut clients = self.clients(&readers, wakers);
        for _ in 1..tries {
            if clients[0].future != 0 {
                break;
            }
            thread::sleep(BETWEEN_ROUNDS);
            clients = self.clients(&readers, wakers);
        }
        let blocking = self.blocking(wakers);
        if clients[0].future == 0 && blocking.task == 0 {
            return Err(Unknown::NotYet("no call under way shows yet who waits for it"));
        }
        Ok(Tokio { wakers, reader, id, trailer, blocking, clients })
    }

    /// Where on their stacks threads have the blocking work that a task waits for.
    fn blocking(&self, wakers: u64) -> Blocking {
        let mut stacks = Vec::new();
        for round in 0..MOST_ROUNDS {
            if round > 0 && (stacks.is_empty() || is_enough(&stacks)) {
                break;
            }
            if round > 0 {
                thread::sleep(BETWEEN_ROUNDS);
            }
            let threads = self.memory.threads(THREAD_BLOCK).take(MOST_STACKS);
            stacks.extend(threads.filter_map(|thread| self.work_of(thread, wakers)));
        }
        agreed(&stacks, wakers).unwrap_or_default()
    }

    /// The work that a thread does and a task waits for.
    fn work_of(&self, thread: u64, wakers: u64) -> Option<Stack> {
        let words = self.memory.words(thread.checked_sub(STACK)?, (STACK / 8) as usize);
        // A thread that runs a scheduler has that in the same place: a work that nobody waits for.
        let runs = |word: &u64| self.task(*word).filter(|task| self.is_running(task.task));
        let work = words.iter().rev().find_map(runs).filter(|work| self.is_awaited(work, wakers))?;
        let Reader { task, future, .. } = work;
        let places = words.iter().enumerate().filter_map(|(index, word)| {
            let below = u16::try_from(STACK as usize - 8 * index).ok()?;
            match *word {
                word if word == task => Some((below, None)),
                word if self.is_code(word) => Some((below, Some(word))),
                _ => None,
            }
        });
        Some(Stack { thread, work: self.memory.word_at(task, future.0)?, places: places.collect() })
    }

    fn is_running(&self, task: u64) -> bool {
        self.memory.word(task).is_some_and(|state| state & Tokio::STAGES == Tokio::RUNS)
    }

    /// Whether another task waits for the end of this one.
    fn is_awaited(&self, task: &Reader, wakers: u64) -> bool {
        let state = self.memory.word(task.task).unwrap_or_default();
        let trailer = self.memory.words(task.task.wrapping_add(task.future.1), TRAILER_WORDS);
        let is_waker = |pair: &[u64]| pair[0] == wakers && self.task(pair[1]).is_some();
        state & Tokio::JOINED == Tokio::JOINED && trailer.chunks_exact(2).any(is_waker)
    }

    /// Kinds of tasks that have the sender of a response that another task waits for, the commonest first.
    fn clients(&self, readers: &[Reader], wakers: u64) -> [Client; Tokio::CLIENTS] {
        let mut seen: BTreeMap<Key, u32> = BTreeMap::new();
        for reader in readers {
            // Memory behind something shorter may belong to what is meant: that one's own address is the nearest to it.
            let clients = self.seen_in(reader, wakers);
            let nearest = clients.iter().map(|client| client.sends).min();
            for client in clients.iter().filter(|client| Some(client.sends) == nearest) {
                *seen.entry(key(client)).or_default() += 1;
            }
        }
        let mut seen: Vec<(Key, u32)> = seen.into_iter().collect();
        // Of two places that are seen as often, which say the same, it is the first.
        seen.sort_by_key(|(client, count)| (u32::MAX - count, *client));
        let mut clients: Vec<Client> = Vec::new();
        for ((future, sends, sender, boxed, receives, state), _) in seen {
            if clients.iter().all(|client| client.future != future) {
                clients.push(Client { future, boxed, sender, state, sends, receives });
            }
        }
        let mut clients = clients.into_iter();
        [(); Tokio::CLIENTS].map(|()| clients.next().unwrap_or_default())
    }

    /// Where this task has senders that another task waits for: in itself, or in a boxed future that it runs.
    fn seen_in(&self, reader: &Reader, wakers: u64) -> Vec<Client> {
        let (from, to) = (reader.future.0 + 8, reader.future.1);
        let own = self.memory.words(reader.task.wrapping_add(from), ((to - from) as usize).min(MOST_FUTURE) / 8);
        let mut clients = Vec::new();
        for (index, word) in own.iter().enumerate() {
            let offset = from + 8 * index as u64;
            if let (Some(sends), Ok(sender)) = (self.sends(*word, reader.task, wakers), u16::try_from(offset)) {
                clients.push(Client { future: reader.vtable, boxed: 0, sender, ..sends });
            }
            let functions = own.get(index + 1).copied().unwrap_or_default();
            let size = if is_address(*word, WORD) { self.future_size(functions) } else { None };
            let (Some(size), Ok(boxed)) = (size, u8::try_from(offset / 8)) else { continue };
            for (index, word) in self.memory.words(*word, size.min(MOST_FUTURE) / 8).iter().enumerate() {
                if let Some(sends) = self.sends(*word, reader.task, wakers) {
                    clients.push(Client { future: functions, boxed, sender: 8 * index as u16, ..sends });
                }
            }
        }
        clients
    }

    /// How what `task` shares with a task that waits for it is laid out, if `shared` is the address of that: an `Arc` that each of the
    /// two holds, the waker of both, and the state that says so.
    fn sends(&self, shared: u64, task: u64, wakers: u64) -> Option<Client> {
        if !is_address(shared, WORD) || self.is_data(shared) || self.memory.words(shared, 2) != [2, 1] {
            return None;
        }
        let words = self.memory.words(shared, MOST_SHARED / 8);
        let has_waker = |index: usize| words.get(index) == Some(&wakers);
        let of_sender = |index: usize| has_waker(index) && words.get(index + 1) == Some(&task);
        let of_receiver = |index: usize| {
            let other = words.get(index + 1).copied().unwrap_or_default();
            has_waker(index) && other != task && self.task(other).is_some()
        };
        (2..words.len()).find_map(|sends| {
            let receives =
                [sends.wrapping_sub(2), sends + 2].into_iter().find(|index| *index >= 2 && of_receiver(*index));
            let receives = receives.filter(|_| of_sender(sends))?;
            // The compiler keeps what is small together, and the response apart.
            let beside = [sends.min(receives).wrapping_sub(1), sends.max(receives) + 2];
            let state = beside.into_iter().find(|index| *index >= 2 && words.get(*index) == Some(&Tokio::AWAITED))?;
            let offset = |index: usize| u8::try_from(index).ok();
            let (state, sends, receives) = (offset(state)?, offset(sends)?, offset(receives)?);
            Some(Client { state, sends, receives, ..Client::default() })
        })
    }

    /// The task at an address, if there is one: `Header`, with a `Vtable` third, which has seven functions and three offsets. A build
    /// with `tokio_unstable` has a fourth.
    fn task(&self, address: u64) -> Option<Reader> {
        if !is_address(address, CACHE_LINES) {
            return None;
        }
        let vtable = self.memory.word_at(address, Tokio::VTABLE.into()).filter(|vtable| self.is_data(*vtable))?;
        let words = self.memory.words(vtable, VTABLE_WORDS);
        let functions = words.iter().filter(|word| self.is_code(**word)).count();
        let is_offset = |word: &u64| word.is_multiple_of(8) && (HEADER..MOST_TASK).contains(word);
        let mut offsets: Vec<(u64, u8)> = words
            .iter()
            .enumerate()
            .filter(|(_, word)| is_offset(word))
            .map(|(index, word)| (*word, index as u8))
            .collect();
        offsets.sort_unstable();
        // The scheduler is first in a task, its id next, and the trailer last: `Cell` is `repr(C)`.
        let [_scheduler, (id, at), .., (trailer, trailer_at)] = *offsets else { return None };
        let places = Places { id: at, trailer: trailer_at };
        (functions == VTABLE_FUNCTIONS && offsets.len() == VTABLE_OFFSETS && id < trailer).then_some(Reader {
            task: address,
            vtable,
            future: (id, trailer),
            places,
        })
    }

    /// Whether four functions are there: clone, wake, wake by reference, drop.
    fn is_waker_table(&self, address: u64) -> bool {
        let words = if self.is_data(address) { self.memory.words(address, 4) } else { Vec::new() };
        words.len() == 4 && words.iter().all(|word| self.is_code(*word))
    }

    /// The size of the future whose functions these are: drop, which may be none, size, alignment, poll.
    fn future_size(&self, functions: u64) -> Option<usize> {
        if !self.is_data(functions) {
            return None;
        }
        let words = self.memory.words(functions, 4);
        let [drop, size, alignment, poll] = *words else { return None };
        let is_future = (drop == 0 || self.is_code(drop)) && alignment.is_power_of_two() && self.is_code(poll);
        usize::try_from(size).ok().filter(|size| is_future && *size >= 8 && alignment <= MOST_TASK)
    }

    fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|(start, end)| (*start..*end).contains(&address))
    }

    fn is_data(&self, address: u64) -> bool {
        self.data.iter().any(|(start, end)| (*start..*end).contains(&address))
    }
}

/// How far below a thread's block something is: code at this address, or the task that the thread runs.
type Place = (u16, Option<u64>);

/// The stack of a thread that works.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Stack {
    thread: u64,
    /// The id of the work.
    work: u64,
    /// Where its task is, and code.
    places: Vec<Place>,
}

/// Whether a thread was seen with two works: what it has left behind of the first is told from what it has of the second. Threads
/// that have just begun are alike in what was left behind, too.
fn is_enough(stacks: &[Stack]) -> bool {
    stacks
        .iter()
        .enumerate()
        .any(|(index, one)| stacks[..index].iter().any(|other| one.thread == other.thread && one.work != other.work))
}

/// Where nearly all of these works have their task: the outermost such place, with an address of code before it that is the same for
/// all. The frames there are those that began the thread, and stay while it is there: other threads began otherwise.
fn agreed(stacks: &[Stack], wakers: u64) -> Option<Blocking> {
    if !is_enough(stacks) {
        return None;
    }
    let mut places: BTreeMap<Place, usize> = BTreeMap::new();
    for place in stacks.iter().flat_map(|stack| &stack.places) {
        *places.entry(*place).or_default() += 1;
    }
    // While they are read some go on to the next.
    places.retain(|_, count| *count * 4 >= stacks.len() * 3);
    let tasks = places.keys().filter(|(_, code)| code.is_none());
    let found = tasks.filter_map(|(task, _)| {
        let (origin, code) =
            places.range(..(*task, None)).rev().find_map(|((place, code), _)| Some((*place, (*code)?)))?;
        let code = i32::try_from(code.wrapping_sub(wakers).cast_signed()).ok()?;
        Some(Blocking { task: *task, origin, code })
    });
    found.min_by_key(|found| found.task)
}

/// A client's future, and where in it what is; so that clients have an order.
type Key = (u64, u8, u16, u8, u8, u8);

fn key(client: &Client) -> Key {
    let Client { future, boxed, sender, state, sends, receives } = *client;
    (future, sends, sender, boxed, receives, state)
}

/// Whether this may be the address of something of the program's so aligned.
fn is_address(word: u64, alignment: u64) -> bool {
    word.is_multiple_of(alignment) && (LOWEST..HIGHEST).contains(&word)
}

/// Descriptors of a process that is looked at. While the kernel lists what an epoll instance watches, nobody can be added to it, and a
/// process that has many has a busy one: 4,096 take 1 ms.
const MOST_DESCRIPTORS: usize = 4096;

/// A runtime has one, under three numbers; programs have one or two runtimes.
const MOST_POLLS: usize = 8;

/// 90 bytes a socket.
const MOST_TEXT: u64 = 1 << 20;

/// Sockets that are looked at: some of those that call must be among them.
const MOST_SOCKETS: usize = MOST_DESCRIPTORS;

/// Sockets whose readers agree. A program may have one connection, and calls by other means.
const LEAST_READERS: usize = 1;

/// `align(128)` on x86-64, of both `ScheduledIo` and a task's `Cell`.
const CACHE_LINES: u64 = 128;

/// Bytes of a `ScheduledIo` that are looked at: it has less than two of its alignments.
const SCHEDULED_IO: usize = 192;

/// Bytes of a task's or a box's future that are looked at: hyper's have up to 1 KiB, with TLS 2 KiB.
const MOST_FUTURE: usize = 16 << 10;

/// What sender and receiver share is mostly room for a response or an error, some 300 bytes; offsets are words in one byte.
const MOST_SHARED: usize = 2048;

/// `task::raw::Vtable`, the same from 1.30 to 1.54: poll, schedule, dealloc, `try_read_output`, `drop_join_handle_slow`, `drop_abort_handle`, shutdown.
const VTABLE_FUNCTIONS: usize = 7;
const VTABLE_OFFSETS: usize = 3;
const VTABLE_WORDS: usize = VTABLE_FUNCTIONS + VTABLE_OFFSETS;

/// `size_of::<Header>()`: nothing of a task is before that.
const HEADER: u64 = 32;

/// Tasks are some KiB.
const MOST_TASK: u64 = 1 << 20;

/// Of a thread's stack, this much is looked at below its block: the outermost frames, and in between the thread-local variables.
const STACK: u64 = 16 << 10;

/// glibc's block of a thread, some 2 KiB, is at the end of its mapping.
const THREAD_BLOCK: u64 = 16 << 10;

/// Threads that are looked at: tokio has up to 512 for blocking work, some of which work.
const MOST_STACKS: usize = 64;

/// Looks in a row for a call that is under way: one at a time is under way half of the time.
const MOST_TRIES: u32 = 4;

/// Looks in a row at threads that work, until one of them does another work: they take milliseconds.
const MOST_ROUNDS: u32 = 8;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(4);

/// `Trailer`: links, a waker, and hooks, two words each.
const TRAILER_WORDS: usize = 6;

const WORD: u64 = 8;

/// Below it nothing is mapped (`vm.mmap_min_addr`), and from 2^47 on only what asks for it.
const LOWEST: u64 = 64 << 10;
const HIGHEST: u64 = 1 << 47;

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// Memory of a program, as words of this process's: code is what is below them.
    struct Program {
        words: Vec<u64>,
        /// Index of the first that begins a cache line, and of the first that nothing is in.
        start: usize,
        end: usize,
        wakers: u64,
        data: Vec<(u64, u64)>,
    }

    const CODE: Range<u64> = 0x1_0000..0x2_0000;

    impl Program {
        fn new() -> Self {
            let words = vec![0; 8192];
            let start = (words.as_ptr() as usize).next_multiple_of(CACHE_LINES as usize) - words.as_ptr() as usize;
            let mut program = Self { words, start: start / 8, end: start / 8, wakers: 0, data: Vec::new() };
            program.wakers = program.constant(&[CODE.start, CODE.start + 9, CODE.start + 99, CODE.end - 1]);
            program
        }

        fn address(&self, index: usize) -> u64 {
            self.words.as_ptr() as u64 + 8 * index as u64
        }

        /// Something that begins a cache line.
        fn put(&mut self, words: &[u64]) -> u64 {
            let at = self.end;
            self.words[at..at + words.len()].copy_from_slice(words);
            self.end = (at + words.len() - self.start).next_multiple_of(16) + self.start;
            self.address(at)
        }

        fn constant(&mut self, words: &[u64]) -> u64 {
            let address = self.put(words);
            self.data.push((address, self.address(self.end)));
            address
        }

        fn index(&self, address: u64, offset: u64) -> usize {
            ((address + offset - self.address(0)) / 8) as usize
        }

        fn get(&self, address: u64, offset: u64) -> u64 {
            self.words[self.index(address, offset)]
        }

        fn set(&mut self, address: u64, offset: u64, word: u64) {
            let index = self.index(address, offset);
            self.words[index] = word;
        }

        /// The functions of tasks whose future has this many bytes.
        fn kind(&mut self, future: u64) -> u64 {
            let functions = [CODE.start + 1; VTABLE_FUNCTIONS];
            self.constant(&[functions.as_slice(), &[48 + future, 32, 40]].concat())
        }

        fn task(&mut self, kind: u64, id: u64, future: &[u64]) -> u64 {
            self.put(&[&[0xc4, 0, kind, 1, 0xaa00, id], future].concat())
        }

        /// A socket that this task waits to read.
        fn socket(&mut self, task: u64) -> u64 {
            let wakers = self.wakers;
            let mut words = [0; SCHEDULED_IO / 8];
            (words[6], words[7]) = (wakers, task);
            self.put(&words)
        }

        /// What a sender and a receiver share.
        fn shared(&mut self, keeper: u64, waiting: u64) -> u64 {
            let wakers = self.wakers;
            let mut words = [0; 64];
            words[..8].copy_from_slice(&[2, 1, wakers, keeper, wakers, waiting, Tokio::AWAITED, 5]);
            self.put(&words)
        }

        fn look(&self, sockets: &[u64]) -> Result<Tokio, Unknown> {
            let memory = Memory::open(Path::new("/proc/self")).expect("this process runs");
            let image = Image { memory: &memory, code: vec![(CODE.start, CODE.end)], data: self.data.clone() };
            image.layout(sockets, 2)
        }
    }

    /// Two connections of a server's, and one of a client's whose future is in a box, as hyper-util's are: the sockets, the client's
    /// box and the functions of that.
    fn calling(program: &mut Program) -> (Vec<u64>, u64, u64) {
        let (serves, keeps) = (program.kind(1032), program.kind(32));
        let functions = program.constant(&[0, 672, 8, CODE.start + 7]);
        let servers = [7, 8].map(|id| program.task(serves, id, &[0; 129]));
        let boxed = program.put(&[0; 84]);
        let keeper = program.task(keeps, 9, &[0, boxed, functions, 0]);
        let shared = program.shared(keeper, servers[0]);
        program.set(boxed, 600, shared);
        let sockets = [servers[0], servers[1], keeper].map(|task| program.socket(task));
        (sockets.to_vec(), boxed, functions)
    }

    #[test]
    fn a_call_under_way_shows_who_waits_for_it() {
        let mut program = Program::new();
        let (sockets, _, functions) = calling(&mut program);
        let client = Client { future: functions, boxed: 7, sender: 600, state: 6, sends: 2, receives: 4 };
        let clients = [client, Client::default()];
        let expected =
            Tokio { wakers: program.wakers, reader: 48, id: 9, trailer: 7, blocking: Blocking::default(), clients };
        assert_eq!(program.look(&sockets), Ok(expected));
    }

    #[test]
    fn a_client_may_be_its_task_itself_and_the_fields_in_another_order() {
        let mut program = Program::new();
        let (mut sockets, ..) = calling(&mut program);
        let (serves, keeps) = (program.kind(64), program.kind(512));
        let waiting = program.task(serves, 17, &[0; 8]);
        let keeper = program.task(keeps, 18, &[0; 64]);
        let wakers = program.wakers;
        let shared = program.put(&[2, 1, 0xdead, 0xbeef, Tokio::AWAITED, wakers, waiting, wakers, keeper, 0, 0]);
        program.set(keeper, 488, shared);
        sockets.extend([waiting, keeper].map(|task| program.socket(task)));
        let found = program.look(&sockets).expect("two kinds of clients");
        let client = Client { future: keeps, boxed: 0, sender: 488, state: 4, sends: 7, receives: 5 };
        assert!(found.clients.contains(&client) && found.clients.iter().all(|client| client.future != 0), "{found:?}");
    }

    #[test]
    fn what_is_shared_is_where_its_own_address_is_and_not_behind_something_else() {
        let mut program = Program::new();
        let (sockets, boxed, functions) = calling(&mut program);
        // Another `Arc` of two is just before it, and the client has that one, too.
        let shared = program.get(boxed, 600);
        let before = program.put(&[2, 1, 0]);
        let words: Vec<u64> = (0..64).map(|index| program.get(shared, 8 * index)).collect();
        let behind = program.put(&words);
        program.set(boxed, 120, before);
        program.set(boxed, 600, behind);
        let client = Client { future: functions, boxed: 7, sender: 600, state: 6, sends: 2, receives: 4 };
        assert_eq!(program.look(&sockets).map(|layout| layout.clients[0]), Ok(client));
    }

    #[test]
    fn what_nobody_waits_for_shows_nothing() {
        type Change = fn(&mut Program, u64);
        let cases: [(&str, Change); 6] = [
            ("answered", |program, shared| program.set(shared, 48, Tokio::AWAITED | 2)),
            ("the receiver has not begun to wait", |program, shared| program.set(shared, 48, 8)),
            ("the receiver is gone", |program, shared| program.set(shared, 0, 1)),
            ("another task's sender", |program, shared| program.set(shared, 24, shared)),
            ("no task's receiver", |program, shared| program.set(shared, 40, shared)),
            ("a waker of another kind", |program, shared| program.set(shared, 32, CODE.start)),
        ];
        for (case, change) in cases {
            let mut program = Program::new();
            let (sockets, boxed, _) = calling(&mut program);
            let shared = program.get(boxed, 600);
            change(&mut program, shared);
            let nothing = Err(Unknown::NotYet("no call under way shows yet who waits for it"));
            assert_eq!(program.look(&sockets), nothing, "{case}");
        }
    }

    #[test]
    fn sockets_of_other_programs_have_no_tasks() {
        let mut program = Program::new();
        let (sockets, ..) = calling(&mut program);
        let none = Err(Unknown::NotYet("no task of tokio's waits for one of its sockets"));
        assert_eq!(program.look(&[]), none);
        let elsewhere = program.put(&[7; 24]);
        assert_eq!(program.look(&[elsewhere, 1 << 46]), none);
        // As many have left a waker elsewhere: which of the two is the reader's is not known.
        for socket in &sockets {
            let (task, wakers) = (program.get(*socket, 56), program.wakers);
            program.set(*socket, 64, wakers);
            program.set(*socket, 72, task);
        }
        let few = Err(Unknown::NotYet("too few of its tasks wait for a connection"));
        assert_eq!(program.look(&sockets), few);
    }

    #[test]
    fn the_work_of_a_thread_is_on_its_stack_while_it_runs_and_is_waited_for() {
        type Change = fn(&mut Program, u64, u64);
        let cases: [(&str, bool, Change); 5] = [
            ("as it is", true, |_, _, _| {}),
            ("over", false, |program, work, _| program.set(work, 0, 0xda)),
            ("waits for a thread", false, |program, work, _| program.set(work, 0, 0xd8)),
            ("nobody waits", false, |program, work, _| program.set(work, 0, 0xc9)),
            ("who waits is no task", false, |program, work, trailer| program.set(work, trailer + 24, work + 8)),
        ];
        for (case, is_work, change) in cases {
            let mut program = Program::new();
            let kind = program.kind(32);
            let (waiting, work) = (program.task(kind, 20, &[0; 4]), program.task(kind, 21, &[0; 10]));
            let wakers = program.wakers;
            program.set(work, 0, 0xd9);
            program.set(work, 80 + 16, wakers);
            program.set(work, 80 + 24, waiting);
            change(&mut program, work, 80);
            let stack = program.put(&[0; STACK as usize / 8]);
            let thread = stack + STACK;
            program.set(thread - 4000, 0, work);
            program.set(thread - 4200, 0, CODE.start + 5);
            let memory = Memory::open(Path::new("/proc/self")).expect("this process runs");
            let image = Image { memory: &memory, code: vec![(CODE.start, CODE.end)], data: program.data.clone() };
            let found = image.work_of(thread, wakers);
            let expected = vec![(4200, Some(CODE.start + 5)), (4000, None)];
            assert_eq!(found, is_work.then_some(Stack { thread, work: 21, places: expected }), "{case}");
        }
    }

    #[test]
    fn works_agree_on_the_outermost_place_before_the_same_code() {
        let wakers = 1 << 46;
        let code = |at: u64| Some(wakers - 1000 + at);
        let own = |more: Place| vec![(100, code(1)), (200, None), (250, None), (300, code(2)), (400, None), more];
        let stack = |thread, work, places| Stack { thread, work, places };
        let stacks = [
            stack(8, 1, own((500, code(3)))),
            stack(9, 2, own((500, code(4)))),
            stack(8, 3, own((150, None))),
            stack(8, 3, own((160, None))),
        ];
        let expected = Blocking { task: 200, origin: 100, code: -999 };
        assert_eq!(agreed(&stacks, wakers), Some(expected));
        assert_eq!(agreed(&stacks[..2], wakers), None, "each thread with one work");
        assert_eq!(agreed(&stacks[2..], wakers), None, "twice the same work");
        let two = |first, second| agreed(&[stack(8, 1, first), stack(8, 2, second)], wakers);
        assert_eq!(two(vec![(100, code(2)), (200, None)], vec![(100, code(2)), (208, None)]), None, "of places");
        assert_eq!(two(vec![(100, code(2)), (200, None)], vec![(100, code(3)), (200, None)]), None, "of code");
        assert_eq!(two(vec![(100, Some(7)), (200, None)], vec![(100, Some(7)), (200, None)]), None, "too far");
    }

    #[test]
    fn what_was_found_before_is_kept_as_long_as_it_is_of_the_same_program() {
        let client = |future| Client { future, sender: 8, ..Client::default() };
        let layout = |clients: [u64; 2]| Tokio { wakers: 1, clients: clients.map(client), ..Tokio::default() };
        let futures = |layout: Tokio| layout.clients.map(|client| client.future);
        assert_eq!(futures(joined(layout([5, 0]), layout([4, 0]))), [4, 5]);
        assert_eq!(futures(joined(layout([4, 0]), layout([4, 5]))), [4, 5]);
        assert_eq!(futures(joined(layout([6, 5]), layout([4, 5]))), [4, 5], "there is no room");
        let other = Tokio { wakers: 2, ..layout([5, 0]) };
        assert_eq!(joined(other, layout([4, 0])), other);
    }

    #[test]
    fn lines_of_epoll_name_addresses() {
        let line = |data: &str| format!("tfd:       14 events: 8000201d data: {data}  pos:0 ino:85b4f0 sdev:9");
        assert_eq!(known_by(&line("    7fd85c020f00")), Some(0x7fd8_5c02_0f00));
        for other in ["               0", "               1", "    7fd85c020f08", "ffffffffffffff80"] {
            assert_eq!(known_by(&line(other)), None, "{other}");
        }
        assert_eq!(known_by("pos:\t0"), None);
    }

    #[test]
    fn kernels_tell_since_5_12() {
        for (release, tells) in [("5.10.0-30-cloud-amd64", false), ("5.12.0", true), ("6.1-rc1", true), ("7", true)] {
            assert_eq!(tells_what_epoll_knows(release), tells, "{release}");
        }
        assert!(!tells_what_epoll_knows(""));
    }
}
