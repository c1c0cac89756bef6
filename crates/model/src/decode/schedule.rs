//! Who is decoded and who waits, and where each has its rows in the cache. It knows no device.

use super::regions::Regions;
use super::request::{Completion, Ended, FinishReason, Request};
use super::sampling::Sampling;
use std::ops::Range;

/// A sequence that is decoded.
pub(super) struct Sequence {
    /// Place of its request in the list, and its number there.
    pub request: usize,
    pub sample: usize,
    /// Rows of the cache that hold its prompt, but for the last token, which the first row of the sequence's own is.
    pub prefix: Range<usize>,
    /// First row of its own.
    pub own: usize,
    /// The token that goes through the model next, and its position.
    pub token: u32,
    pub position: usize,
    tokens: Vec<u32>,
    logps: Vec<f64>,
    /// Tokens that are penalised: those of the prompt and those that were drawn, each once, in order. Empty without a
    /// penalty.
    pub seen: Vec<u32>,
}

impl Sequence {
    /// How many tokens were drawn of it.
    pub fn drawn(&self) -> usize {
        self.tokens.len()
    }

    fn ended(self, finish_reason: FinishReason) -> Ended {
        let completion = Completion { tokens: self.tokens, logps: self.logps, finish_reason };
        Ended { request: self.request, sample: self.sample, completion }
    }
}

/// The sequences of a list of requests, from waiting to ended.
pub(super) struct Schedule<'a> {
    requests: &'a [Request<'a>],
    how: Sampling,
    stop: &'a [u32],
    max_positions: usize,
    /// The sample that begins next: its request and its number.
    next: (usize, usize),
    /// Of each request that has begun: where its prompt is, until its last sample ends.
    prefixes: Vec<Range<usize>>,
    /// Samples of each request that have not ended.
    left: Vec<usize>,
    regions: Regions,
    /// First rows of the places for sequences that are free.
    free: Vec<usize>,
    /// In the order in which they began: samples of a prompt are neighbours.
    pub active: Vec<Sequence>,
}

impl<'a> Schedule<'a> {
    /// All waiting, over a cache of `shared` rows for prompts, then `own` rows for each of `sequences`.
    pub fn new(
        requests: &'a [Request<'a>],
        how: Sampling,
        stop: &'a [u32],
        max_positions: usize,
        [shared, sequences, own]: [usize; 3],
    ) -> Self {
        Schedule {
            requests,
            how,
            stop,
            max_positions,
            next: (0, 0),
            prefixes: Vec::with_capacity(requests.len()),
            left: requests.iter().map(|r| r.samples).collect(),
            regions: Regions::new(shared),
            free: (0..sequences).rev().map(|i| shared + i * own).collect(),
            active: Vec::with_capacity(sequences),
        }
    }

    /// Lets sequences begin, in order, while there is room. Returns the requests whose prompts have to go through the
    /// model before, up to `rows` tokens of them, or one; where there are none, nothing more can begin now.
    pub fn admit(&mut self, rows: usize) -> Vec<usize> {
        let (mut prompts, mut filled) = (Vec::new(), 0);
        while let Some(request) = self.requests.get(self.next.0) {
            let (number, sample) = self.next;
            if sample == request.samples {
                // One without samples has no prefix.
                if request.samples == 0 {
                    self.prefixes.push(0..0);
                }
                self.next = (number + 1, 0);
                continue;
            }
            let Some(&own) = self.free.last() else { break };
            if sample == 0 {
                let len = request.prompt.len() - 1;
                if filled > 0 && filled + len > rows {
                    break;
                }
                let Some(region) = self.regions.take(len) else { break };
                self.prefixes.push(region);
                if len > 0 {
                    prompts.push(number);
                    filled += len;
                }
            }
            self.free.pop();
            self.next.1 += 1;
            self.begin(number, sample, own);
        }
        prompts
    }

    fn begin(&mut self, number: usize, sample: usize, own: usize) {
        let request = &self.requests[number];
        let mut seen = Vec::new();
        if self.how.repetition_penalty != 1.0 {
            seen.extend_from_slice(request.prompt);
            seen.sort_unstable();
            seen.dedup();
        }
        let position = request.prompt.len() - 1;
        self.active.push(Sequence {
            request: number,
            sample,
            prefix: self.prefixes[number].clone(),
            own,
            token: request.prompt[position],
            position,
            tokens: Vec::new(),
            logps: Vec::new(),
            seen,
        });
    }

    /// Where the prompt of a request begins in the cache.
    pub fn prefix(&self, request: usize) -> usize {
        self.prefixes[request].start
    }

    /// Adds a token to each active sequence. Returns those that end with it; their room is free.
    pub fn advance(&mut self, drawn: impl Iterator<Item = (u32, f64)>) -> Vec<Ended> {
        let mut ended = Vec::new();
        let mut drawn = drawn;
        let active = std::mem::take(&mut self.active);
        self.active = active
            .into_iter()
            .filter_map(|mut sequence| {
                let (token, logp) = drawn.next()?;
                sequence.tokens.push(token);
                sequence.logps.push(logp);
                sequence.token = token;
                sequence.position += 1;
                if self.how.repetition_penalty != 1.0
                    && let Err(place) = sequence.seen.binary_search(&token)
                {
                    sequence.seen.insert(place, token);
                }
                let longest = sequence.drawn() == self.how.max_new_tokens
                    || sequence.position + 1 >= self.max_positions;
                let reason = match (self.stop.contains(&token), longest) {
                    (true, _) => FinishReason::Stop,
                    (false, true) => FinishReason::Length,
                    (false, false) => return Some(sequence),
                };
                self.free.push(sequence.own);
                self.left[sequence.request] -= 1;
                if self.left[sequence.request] == 0 {
                    self.regions.give_back(sequence.prefix.clone());
                }
                ended.push(sequence.ended(reason));
                None
            })
            .collect();
        ended
    }

    /// All that have not ended, as far as they are; those that have not begun too.
    pub fn abort(self) -> Vec<Ended> {
        let (requests, (number, sample)) = (self.requests, self.next);
        let begun = self.active.into_iter().map(|sequence| sequence.ended(FinishReason::Abort));
        let waiting = (number..requests.len()).flat_map(|request| {
            let first = if request == number { sample } else { 0 };
            (first..requests[request].samples).map(move |sample| Ended {
                request,
                sample,
                completion: Completion {
                    tokens: Vec::new(),
                    logps: Vec::new(),
                    finish_reason: FinishReason::Abort,
                },
            })
        });
        begun.chain(waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(prompts: &[Vec<u32>], samples: usize) -> Vec<Request<'_>> {
        Request::repeated(prompts, samples)
    }

    /// Three places, prompts of up to 10 tokens at a time: whoever ends makes room for the next, prompts stay as long
    /// as a sample needs them, and no two sequences ever have a row in common.
    #[test]
    fn whoever_ends_makes_room() {
        let prompts: Vec<Vec<u32>> = [6, 1, 5, 9, 2].map(|n| (0..n).collect()).into();
        let requests = requests(&prompts, 2);
        let how = Sampling { max_new_tokens: 4, ..Sampling::default() };
        let mut schedule = Schedule::new(&requests, how, &[7], 100, [10, 3, 4]);
        assert_eq!(schedule.admit(5), [0]);
        assert_eq!(schedule.admit(5), [] as [usize; 0], "all places are taken");
        let of = |s: &Schedule<'_>| s.active.iter().map(|s| (s.request, s.sample)).collect::<Vec<_>>();
        assert_eq!(of(&schedule), [(0, 0), (0, 1), (1, 0)]);
        let (mut all, mut turn) = (Vec::new(), 0);
        while !schedule.active.is_empty() {
            for (i, a) in schedule.active.iter().enumerate() {
                assert_eq!(a.prefix.len() + 1, prompts[a.request].len());
                assert!(a.own >= 10 && a.own + 4 <= 10 + 3 * 4);
                for b in &schedule.active[..i] {
                    assert_ne!(a.own, b.own);
                    let apart = a.prefix.end <= b.prefix.start || b.prefix.end <= a.prefix.start;
                    assert!(a.request == b.request || apart);
                }
            }
            turn += 1;
            // Every third token stops.
            let n = schedule.active.len();
            all.extend(schedule.advance((0..n).map(|i| (if (turn + i) % 3 == 0 { 7 } else { 1 }, -1.0))));
            while !schedule.admit(9).is_empty() {}
        }
        assert_eq!(all.len(), 10);
        for ended in &all {
            let tokens = &ended.completion.tokens;
            match ended.completion.finish_reason {
                FinishReason::Stop => assert_eq!(tokens.iter().position(|&t| t == 7), Some(tokens.len() - 1)),
                FinishReason::Length => assert!(tokens.len() == 4 && !tokens.contains(&7)),
                FinishReason::Abort => panic!("nothing was stopped"),
            }
            assert_eq!(ended.completion.logps.len(), tokens.len());
        }
        assert_eq!(schedule.free.len(), 3);
        assert_eq!(schedule.regions.take(10), Some(0..10), "all rows are free again");
        assert!(schedule.abort().is_empty());
    }

    #[test]
    fn what_is_stopped_is_returned_as_it_is() {
        let prompts = [vec![1, 2], vec![3]];
        let requests = requests(&prompts, 2);
        let mut schedule = Schedule::new(&requests, Sampling::default(), &[], 100, [2, 1, 64]);
        schedule.admit(8);
        schedule.advance([(5, -0.5)].into_iter());
        let all = schedule.abort();
        let places: Vec<_> = all.iter().map(|e| (e.request, e.sample, e.completion.tokens.len())).collect();
        assert_eq!(places, [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0)]);
        assert!(all.iter().all(|e| e.completion.finish_reason == FinishReason::Abort));
    }

    #[test]
    fn a_penalised_token_is_named_once() {
        let prompts = [vec![9, 2, 9]];
        let requests = requests(&prompts, 1);
        let how = Sampling { repetition_penalty: 1.5, ..Sampling::default() };
        let mut schedule = Schedule::new(&requests, how, &[], 100, [2, 1, 64]);
        schedule.admit(8);
        for token in [5, 2, 5] {
            schedule.advance([(token, 0.0)].into_iter());
        }
        assert_eq!(schedule.active[0].seen, [2, 5, 9]);
    }
}
