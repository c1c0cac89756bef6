//! The engine: passes over sequences that share a cache.

use super::request::{Completion, Drawn, Ended, Pace, Request};
use super::room::{Plan, Room};
use super::sampling::{Mixture, Sampling};
use super::schedule::Schedule;
use crate::activations::{Activations, Keep};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::graph::run;
use crate::layer::{Attend, CacheRows, KeysValues};
use crate::save::first_not_finite_of;
use crate::weights::{Model, Weights};
use duel_backend::{
    Acc, Backend, Draw, Float, Gemm, Index, Layout, Logits, Map, Measure, Portions, Real, Segment, Storage,
    Weight,
};
use duel_random::{at, fraction};
use std::collections::HashMap;
use std::time::Instant;

/// Decodes lists of requests; its buffers are allocated once, for any weights of the model.
pub struct Engine<B: Storage> {
    config: Config,
    room: Room,
    /// From one row of logits to the next.
    stride: usize,
    /// One, or two where two models are mixed.
    seats: Vec<Seat<B>>,
    at: CacheRows<B>,
    activations: Activations<B>,
    layout: Layout<B>,
    seen: Index<B>,
    draws: Acc<B>,
    tokens: Index<B>,
    logps: Acc<B>,
    host: Host<B>,
}

/// What a model has of its own.
struct Seat<B: Storage> {
    /// A layer each.
    cache: Vec<KeysValues<B>>,
    logits: Real<B>,
}

/// What goes to the device and comes from it in a pass.
struct Host<B: Storage> {
    slots: Vec<u32>,
    runs: Vec<u32>,
    seen: Vec<u32>,
    ids: Vec<u32>,
    positions: Vec<u32>,
    draws: Vec<B::Acc>,
    tokens: Vec<u32>,
    logps: Vec<B::Acc>,
}

impl<B: Storage> Host<B> {
    /// No row any more.
    fn clear(&mut self) {
        self.slots.clear();
        self.runs.clear();
        self.seen.clear();
        self.ids.clear();
        self.positions.clear();
        self.draws.clear();
    }

    /// A row more: where its key goes, and the two runs of keys that it sees.
    fn row(&mut self, slot: usize, run: [usize; 4], token: u32, position: usize) {
        self.slots.push(slot as u32);
        self.runs.extend(run.map(|n| n as u32));
        self.ids.push(token);
        self.positions.push(position as u32);
    }

    /// The random number of the last row.
    fn draws(&mut self, place: [u64; 4]) {
        self.draws.push(B::Acc::from_f64(fraction(at(&place))));
    }
}

impl<B: Storage> Engine<B> {
    fn on(b: &B, portions: Portions, c: &Config, room: Room, models: usize) -> Result<Self> {
        let (rows, n) = (room.rows(portions), room.sequences);
        let stride = c.vocab.next_multiple_of(portions.logits_multiple);
        let seat = |_| Ok(Seat { cache: Self::cache(b, c, room)?, logits: b.alloc(n * stride)? });
        Ok(Engine {
            stride,
            seats: (0..models).map(seat).collect::<Result<_>>()?,
            at: CacheRows { slots: b.alloc(rows)?, runs: b.alloc(4 * rows)? },
            activations: Activations::new(b, c, rows, room.positions(c), Keep::Nothing)?,
            layout: Layout::new(b, rows)?,
            seen: b.alloc(2 * n * c.vocab.min(room.positions(c)))?,
            draws: b.alloc(n)?,
            tokens: b.alloc(n)?,
            logps: b.alloc(n)?,
            host: Host {
                slots: Vec::new(),
                runs: Vec::new(),
                seen: Vec::new(),
                ids: Vec::new(),
                positions: Vec::new(),
                draws: Vec::new(),
                tokens: vec![0; n],
                logps: vec![B::Acc::default(); n],
            },
            config: c.clone(),
            room,
        })
    }

    /// Keys and values of one model.
    fn cache(b: &B, c: &Config, room: Room) -> Result<Vec<KeysValues<B>>> {
        let rows = room.sequences.saturating_mul(room.own(c)).saturating_add(room.shared());
        let len = rows.saturating_mul(c.heads.kv_width());
        (0..c.layers).map(|_| Ok((b.alloc(len)?, b.alloc(len)?))).collect()
    }

    /// What [`Engine::new`] allocates on a device of such portions.
    pub fn plan(portions: Portions, c: &Config, room: Room) -> Plan {
        Self::plan_of(portions, c, room, 1)
    }

    /// What [`Engine::mixing`] allocates on a device of such portions.
    pub fn mixing_plan(portions: Portions, c: &Config, room: Room) -> Plan {
        Self::plan_of(portions, c, room, 2)
    }

    fn plan_of(portions: Portions, c: &Config, room: Room, models: usize) -> Plan {
        let cache = models * Measure::<B>::bytes(|b| Engine::cache(b, c, room));
        let all = Measure::<B>::bytes(|b| Engine::on(b, portions, c, room, models));
        Plan { room: Room { new_tokens: room.own(c), ..room }, cache, passes: all - cache }
    }
}

impl<B: Backend> Engine<B> {
    /// An engine for a model of this shape, with its buffers.
    ///
    /// # Errors
    /// The device has no room for them, or no verbs for such a model.
    pub fn new(b: &B, c: &Config, room: Room) -> Result<Self> {
        c.check_device(b, room.positions(c))?;
        Self::on(b, b.portions(), c, room, 1)
    }

    /// As [`Engine::new`], with the room that [`Engine::run_mixed`] needs: keys and values of two models.
    ///
    /// # Errors
    /// The device has no room for them, or no verbs for such models.
    pub fn mixing(b: &B, c: &Config, room: Room) -> Result<Self> {
        c.check_device(b, room.positions(c))?;
        Self::on(b, b.portions(), c, room, 2)
    }

    /// Continues the prompts of `requests` until a token of `stop` (which is kept), as many tokens as `how` allows or
    /// the model's last position; in order, as many at a time as there is room for. `watch` hears after every pass
    /// which completions ended in it, and stops the work by returning `false`: what has not ended then is returned as
    /// it is.
    ///
    /// A completion depends on the weights, its prompt, the number of its request and its own number, `how` and `stop`
    /// alone: not on the room, the other requests, their order, or the number of threads.
    ///
    /// # Errors
    /// A number of `how` is out of its range, a prompt has no continuation, the logits are not numbers, or the device
    /// failed.
    ///
    /// # Panics
    /// When a prompt or `how.max_new_tokens` is longer than there is room for, or with weights of a reward model.
    pub fn run(
        &mut self,
        b: &B,
        w: &impl Weights<B>,
        requests: &[Request<'_>],
        how: &Sampling,
        stop: &[u32],
        watch: impl FnMut(&[Ended]) -> bool,
    ) -> Result<Drawn> {
        self.run_models(b, &[w.view()], 0.0, requests, how, stop, watch)
    }

    /// [`Engine::run`] from a mixture of two models of this shape: each token is drawn of the softmax of their blended
    /// logits, of which it has its log-probability too; what `how` does to logits, it does to these.
    ///
    /// # Errors
    /// As [`Engine::run`], or the mixture's coefficient is out of its range.
    ///
    /// # Panics
    /// As [`Engine::run`], and on an engine that [`Engine::mixing`] did not make.
    pub fn run_mixed(
        &mut self,
        b: &B,
        w: &impl Weights<B>,
        mixture: Mixture<'_, impl Weights<B>>,
        requests: &[Request<'_>],
        how: &Sampling,
        stop: &[u32],
        watch: impl FnMut(&[Ended]) -> bool,
    ) -> Result<Drawn> {
        mixture.check()?;
        let models = [w.view(), mixture.reference.view()];
        self.run_models(b, &models, mixture.coef, requests, how, stop, watch)
    }

    /// One model, or two of which the second has the share `coef`.
    fn run_models(
        &mut self,
        b: &B,
        models: &[Model<Weight<'_, B>>],
        coef: f64,
        requests: &[Request<'_>],
        how: &Sampling,
        stop: &[u32],
        mut watch: impl FnMut(&[Ended]) -> bool,
    ) -> Result<Drawn> {
        assert!(models.len() <= self.seats.len(), "an engine that was not made to mix");
        self.check(requests, how)?;
        let cache = [self.room.shared(), self.room.sequences, self.room.own(&self.config)];
        let mut schedule = Schedule::new(requests, *how, stop, self.config.max_positions, cache);
        let mut completions: Vec<Vec<Option<Completion>>> =
            requests.iter().map(|r| vec![None; r.samples]).collect();
        let mut keep = |ended: Vec<Ended>| {
            for Ended { request, sample, completion } in ended {
                completions[request][sample] = Some(completion);
            }
        };
        let mut pace = Pace::default();
        // By number of rows: with the same weights and buffers that is all that a pass depends on.
        let mut recordings: HashMap<usize, B::Recording> = HashMap::new();
        loop {
            let begin = Instant::now();
            loop {
                let prompts = schedule.admit(self.activations.max_rows());
                if prompts.is_empty() {
                    break;
                }
                pace.prompt_tokens += self.prefill(b, models, requests, &schedule, &prompts)?;
            }
            let middle = Instant::now();
            let rows = schedule.active.len();
            if rows == 0 {
                break;
            }
            self.decode(b, models, coef, requests, &schedule, how, recordings.entry(rows).or_default())?;
            if let Some(row) = self.host.tokens[..rows].iter().position(|&token| token == Draw::NONE) {
                let sequence = &schedule.active[row];
                let id = requests[sequence.request].id;
                return Err(self.not_numbers(b, models, id, sequence.sample, sequence.drawn())?);
            }
            let drawn = self.host.tokens.iter().zip(&self.host.logps);
            let ended = schedule.advance(drawn.map(|(&token, logp)| (token, logp.to_f64())));
            pace.prefill += middle - begin;
            pace.decoding += middle.elapsed();
            pace.new_tokens += rows;
            let go_on = watch(&ended);
            keep(ended);
            if !go_on {
                break;
            }
        }
        keep(schedule.abort());
        let completions = completions.into_iter().map(|c| c.into_iter().flatten().collect()).collect();
        Ok(Drawn { completions, pace })
    }

    /// [`Engine::run`] to its end.
    ///
    /// # Errors
    /// As [`Engine::run`].
    ///
    /// # Panics
    /// As [`Engine::run`].
    pub fn generate(
        &mut self,
        b: &B,
        w: &impl Weights<B>,
        requests: &[Request<'_>],
        how: &Sampling,
        stop: &[u32],
    ) -> Result<Drawn> {
        self.run(b, w, requests, how, stop, |_| true)
    }

    /// # Errors
    /// As [`Engine::run`]; and so it panics.
    fn check(&self, requests: &[Request<'_>], how: &Sampling) -> Result<()> {
        how.check()?;
        let (c, room) = (&self.config, self.room);
        let new = how.max_new_tokens.min(c.max_positions);
        assert!(new <= room.own(c), "more new tokens than there is room for");
        for request in requests {
            request.check(c)?;
            request.check_length(c, new)?;
            assert!(request.prompt.len() <= room.longest, "a prompt is longer than there is room for");
            assert!(room.sequences > 0 || request.samples == 0, "there is no room for a sequence");
        }
        Ok(())
    }

    /// The packed pass over prompts, for their keys and values. Returns the number of tokens.
    fn prefill(
        &mut self,
        b: &B,
        models: &[Model<Weight<'_, B>>],
        requests: &[Request<'_>],
        schedule: &Schedule<'_>,
        prompts: &[usize],
    ) -> Result<usize> {
        let Host { slots, ids, .. } = &mut self.host;
        slots.clear();
        ids.clear();
        let mut segments = Vec::with_capacity(prompts.len());
        for &number in prompts {
            let (_, tokens) = requests[number].prompt.split_last().unwrap_or((&0, &[]));
            let (start, first) = (ids.len(), schedule.prefix(number));
            segments.push(Segment { start, len: tokens.len(), prefix_start: 0, prefix_len: 0 });
            ids.extend_from_slice(tokens);
            slots.extend((first..first + tokens.len()).map(|row| row as u32));
        }
        b.upload(&mut self.at.slots, 0, slots);
        self.layout.set(b, ids, segments);
        if let Some(places) = &mut self.activations.scratch.places {
            // A prompt's last token is in the passes after it.
            places.set_packed(b, &self.layout.segments, 1);
        }
        for (w, seat) in models.iter().zip(&mut self.seats) {
            let attend = Attend::Stored((&mut seat.cache[..], &self.at));
            run(b, &self.config, w, &self.layout, &mut self.activations, attend);
        }
        b.finish()?;
        Ok(self.layout.rows)
    }

    /// A token of every active sequence through the model; the next ones are in `host`.
    fn decode(
        &mut self,
        b: &B,
        models: &[Model<Weight<'_, B>>],
        coef: f64,
        requests: &[Request<'_>],
        schedule: &Schedule<'_>,
        how: &Sampling,
        recording: &mut B::Recording,
    ) -> Result<()> {
        self.host.clear();
        for (row, sequence) in (0u32..).zip(&schedule.active) {
            let (id, drawn) = (requests[sequence.request].id, sequence.drawn());
            let run = [sequence.prefix.start, sequence.prefix.len(), sequence.own, drawn + 1];
            self.host.row(sequence.own + drawn, run, sequence.token, sequence.position);
            self.host.draws([how.seed, id, sequence.sample as u64, drawn as u64]);
            self.host.seen.extend(sequence.seen.iter().flat_map(|&token| [row, token]));
        }
        self.draw(b, models, coef, how, recording)
    }

    /// Tokens from position `first` on of the one sequence of an engine that has room for one, whose own rows hold
    /// those before: their keys and values join them.
    pub(super) fn extend(
        &mut self,
        b: &B,
        w: &Model<Weight<'_, B>>,
        tokens: &[u32],
        first: usize,
    ) -> Result<()> {
        let own = self.room.shared();
        self.host.clear();
        for (&token, position) in tokens.iter().zip(first..) {
            self.host.row(own + position, [0, 0, own, position + 1], token, position);
        }
        self.place(b);
        let attend = Attend::Cached((&mut self.seats[0].cache[..], &self.at));
        run(b, &self.config, w, &self.layout, &mut self.activations, attend);
        Ok(b.finish()?)
    }

    /// The same of one token, and the one that is drawn after it, by the random number of `place`, with its
    /// log-probability.
    pub(super) fn next(
        &mut self,
        b: &B,
        w: &Model<Weight<'_, B>>,
        (token, position): (u32, usize),
        (place, seen): ([u64; 4], &[u32]),
        how: &Sampling,
        recording: &mut B::Recording,
    ) -> Result<(u32, f64)> {
        let own = self.room.shared();
        self.host.clear();
        self.host.row(own + position, [0, 0, own, position + 1], token, position);
        self.host.draws(place);
        self.host.seen.extend(seen.iter().flat_map(|&token| [0, token]));
        self.draw(b, &[w.as_ref().map(|weight| *weight)], 0.0, how, recording)?;
        match self.host.tokens[0] {
            Draw::NONE => {
                let [_, id, sample, drawn] = place;
                let models = [w.as_ref().map(|weight| *weight)];
                Err(self.not_numbers(b, &models, id, sample as usize, drawn as usize)?)
            }
            token => Ok((token, self.host.logps[0].to_f64())),
        }
    }

    /// The rows of `host` onto the device.
    fn place(&mut self, b: &B) {
        let Host { slots, runs, ids, positions, .. } = &self.host;
        b.upload(&mut self.at.slots, 0, slots);
        b.upload(&mut self.at.runs, 0, runs);
        self.layout.set_rows(b, ids, positions);
        if let Some(places) = &mut self.activations.scratch.places {
            places.set_rows(b, positions);
        }
    }

    /// The rows of `host` through the models; the tokens that are drawn after them are in it.
    fn draw(
        &mut self,
        b: &B,
        models: &[Model<Weight<'_, B>>],
        coef: f64,
        how: &Sampling,
        recording: &mut B::Recording,
    ) -> Result<()> {
        self.place(b);
        let Host { seen, ids, draws, tokens, logps, .. } = &mut self.host;
        let rows = ids.len();
        b.upload(&mut self.draws, 0, draws);
        let c = &self.config;
        let of_logits = Logits { rows, vocab: c.vocab, stride: self.stride };
        b.repeat(recording, || {
            for (w, seat) in models.iter().zip(&mut self.seats) {
                let attend = Attend::Cached((&mut seat.cache[..], &self.at));
                run(b, c, w, &self.layout, &mut self.activations, attend);
                let dims = Gemm { m: rows, n: c.vocab, k: c.width, stride: self.stride };
                let Map { weight, bias } = w.lm_head();
                b.gemm(&mut seat.logits, &self.activations.hidden, weight, bias, None, dims);
                if let Some(cap) = c.logit_cap {
                    b.soft_cap(&mut seat.logits, cap, of_logits);
                }
            }
            if let ([_, _], [seat, second]) = (models, &mut self.seats[..]) {
                b.blend(&mut seat.logits, &second.logits, coef, of_logits);
            }
        });
        let logits = &mut self.seats[0].logits;
        if !seen.is_empty() {
            b.upload(&mut self.seen, 0, seen);
            b.penalise(logits, &self.seen, seen.len() / 2, how.repetition_penalty, of_logits);
        }
        b.sample(&mut self.tokens, &mut self.logps, logits, &self.draws, how.draw(), of_logits);
        b.download(&mut tokens[..rows], &self.tokens, 0)?;
        b.download(&mut logps[..rows], &self.logps, 0)?;
        Ok(())
    }

    /// Why nothing could be drawn.
    fn not_numbers(
        &self,
        b: &B,
        models: &[Model<Weight<'_, B>>],
        id: u64,
        sample: usize,
        drawn: usize,
    ) -> Result<Error> {
        let (manifest, mut found) = (Model::manifest(&self.config), None);
        for (w, owner) in models.iter().zip(["", " of the reference"]) {
            found = found.or(first_not_finite_of(b, &manifest, w)?.map(|name| (name, owner)));
        }
        let why = match found {
            Some((name, owner)) => {
                format!(
                    "`{name}`{owner} has values that are not finite numbers; the weights are damaged, take others"
                )
            }
            None => {
                "all weights are finite, so they are too large for the numbers that the device computes in"
                    .into()
            }
        };
        Ok(Error::Decoding(format!(
            "no token {drawn} can be drawn for prompt {id}, sample {sample}: its logits are not finite; {why}"
        )))
    }
}
