//! Two models on the same rows: what each says of the token that comes, and how far their predictions are apart.

use super::{Head, Row, Targets};
use duel_backend::{Acc, Backend, Float, Map, Measure, Portions, Prediction, Real, Result, Storage};

/// What a policy and a reference predict on one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Compared {
    /// The policy.
    pub row: Row,
    /// The reference's log-probability of the token that comes.
    pub reference: f64,
    /// The exact KL divergence of the policy's prediction from the reference's, in nats. Of rows that the policy drew,
    /// summed over a response, its mean is the KL of the responses' distributions, as that of the sum of
    /// `row.logp - reference` is, with less variance (Rao and Blackwell).
    pub kl: f64,
}

/// What a comparison needs beside a head's buffers: another chunk of logits.
pub(super) struct Second<B: Storage> {
    logits: Real<B>,
    lse: Acc<B>,
    kl: Acc<B>,
    /// Of every row of a batch. It grows to the largest.
    said: Vec<Compared>,
}

impl<B: Storage> Head<B> {
    fn comparing_on(b: &B, portions: Portions, width: usize, vocab: usize, capacity: usize) -> Result<Self> {
        let mut head = Self::on(b, portions, width, vocab, capacity)?;
        head.second = Some(Second {
            logits: b.alloc(capacity * head.stride)?,
            lse: b.alloc(capacity)?,
            kl: b.alloc(capacity)?,
            said: Vec::new(),
        });
        Ok(head)
    }

    /// Bytes that [`Head::comparing`] allocates on a device of such portions, and on the host.
    pub fn comparing_bytes(portions: Portions, width: usize, vocab: usize, capacity: usize) -> usize {
        let device = Measure::<B>::bytes(|b| Head::comparing_on(b, portions, width, vocab, capacity));
        Self::host_bytes(capacity) + device
    }
}

impl<B: Backend> Head<B> {
    /// As [`Head::new`], with the room that [`Head::compare`] needs: two chunks of logits.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn comparing(b: &B, width: usize, vocab: usize, capacity: usize) -> Result<Self> {
        Self::comparing_on(b, b.portions(), width, vocab, capacity)
    }

    /// Scores every row under a policy and a reference of the same shape, given both heads' weights and both models'
    /// hidden states of one batch, the policy's first. What it says of the policy are the bits of [`Head::score`].
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// On a head that [`Head::comparing`] did not make.
    pub fn compare(
        &mut self,
        b: &B,
        [policy, reference]: [Map<'_, B>; 2],
        hidden: [&Real<B>; 2],
        targets: &Targets,
    ) -> Result<&[Compared]> {
        let mut second = self.second.take().expect("a head that was made to compare");
        let done = self.compare_with(&mut second, b, [policy, reference], hidden, targets);
        let Second { said, .. } = self.second.insert(second);
        done.map(|()| said.as_slice())
    }

    fn compare_with(
        &mut self,
        second: &mut Second<B>,
        b: &B,
        [policy, reference]: [Map<'_, B>; 2],
        hidden: [&Real<B>; 2],
        targets: &Targets,
    ) -> Result<()> {
        self.said.resize(targets.len(), Row::default());
        second.said.resize(targets.len(), Compared::default());
        for from in (0..targets.len()).step_by(self.capacity) {
            let range = from..targets.len().min(from + self.capacity);
            let said = &mut second.said[range.clone()];
            let n = range.len();
            self.forward(b, reference, hidden[1], targets, range.clone());
            b.download(&mut self.host[0][..n], &self.logp, 0)?;
            said.iter_mut().zip(&self.host[0]).for_each(|(said, logp)| said.reference = logp.to_f64());
            // The reference's stay, the policy's come into the place of what was there.
            std::mem::swap(&mut self.logits, &mut second.logits);
            std::mem::swap(&mut self.lse, &mut second.lse);
            self.logits(b, policy, hidden[0], targets, range.clone())?;
            let [p, q] = [(&self.logits, &self.lse), (&second.logits, &second.lse)]
                .map(|(logits, lse)| Prediction { logits, lse });
            b.kl(&mut second.kl, p, q, self.shape(n));
            b.download(&mut self.host[0][..n], &second.kl, 0)?;
            for ((said, row), kl) in said.iter_mut().zip(&self.said[range]).zip(&self.host[0]) {
                (said.row, said.kl) = (*row, kl.to_f64());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::targets::tests::targets;
    use duel_backend::Segment;
    use duel_cpu::Cpu;

    const WIDTH: usize = 5;

    fn wave(n: usize, k: f64) -> Vec<f64> {
        (0..n).map(|i| 2.0 * (i as f64 * k).sin()).collect()
    }

    /// What is said of the policy is what a score says, of the reference what a score of it says; in any room, and
    /// again.
    #[test]
    fn a_comparison_is_two_scores() {
        let (t, _) = targets();
        let (b, vocab) = (Cpu::<f64>::new(1), 7);
        let (p, q) = (wave(vocab * WIDTH, 1.3), wave(vocab * WIDTH, 0.9));
        let (p_hidden, q_hidden) = (wave(12 * WIDTH, 0.7), wave(12 * WIDTH, 1.7));
        let mut plain = Head::new(&b, WIDTH, vocab, 100).unwrap();
        let policy = plain.score(&b, &p, &p_hidden, &t).unwrap().to_vec();
        let reference = plain.score(&b, &q, &q_hidden, &t).unwrap().to_vec();
        for capacity in [1, 3, 100] {
            let mut head = Head::comparing(&b, WIDTH, vocab, capacity).unwrap();
            for _ in 0..2 {
                let (w, hidden) = ([(&p).into(), (&q).into()], [&p_hidden, &q_hidden]);
                let all = head.compare(&b, w, hidden, &t).unwrap();
                assert_eq!(all.iter().map(|said| said.row).collect::<Vec<_>>(), policy);
                assert!(all.iter().zip(&reference).all(|(said, row)| said.reference == row.logp));
                assert!(all.iter().all(|said| said.kl > 0.0));
                assert_eq!(head.score(&b, &q, &q_hidden, &t).unwrap(), reference);
                let same = head.compare(&b, [(&p).into(); 2], [&p_hidden; 2], &t).unwrap();
                assert!(same.iter().all(|said| said.kl == 0.0 && said.reference == said.row.logp));
            }
        }
    }

    /// Every response of a language of three tokens, the last of which ends it, of three tokens at most: the mean of
    /// its rows' KL is the KL of both distributions over responses.
    #[test]
    fn the_mean_over_responses_is_the_kl_of_sequences() {
        let (vocab, longest, end) = (3, 3, 2);
        let (mut responses, mut open) = (Vec::new(), vec![Vec::new()]);
        while let Some(prefix) = open.pop() {
            for token in 0..vocab as u32 {
                let next = [prefix.as_slice(), &[token]].concat();
                let ended = token == end || next.len() == longest;
                if ended { responses.push(next) } else { open.push(next) }
            }
        }
        assert_eq!(responses.len(), 1 + 2 * (1 + 2 * 3));
        // A hidden state a prefix, as a model has it.
        let (mut t, mut tokens, mut hidden) = (Targets::default(), Vec::new(), [Vec::new(), Vec::new()]);
        for response in &responses {
            let start = tokens.len();
            let batch = [&[0], response.as_slice()].concat();
            for at in 0..batch.len() {
                let prefix = batch[1..=at].iter().fold(1, |number, token| 4 * number + token);
                for (hidden, k) in hidden.iter_mut().zip([0.37, 0.91]) {
                    hidden.extend((0..WIDTH).map(|i| (f64::from(prefix) * k + i as f64).sin()));
                }
            }
            tokens.extend(batch);
            let segment =
                Segment { start: start + 1, len: response.len(), prefix_start: start, prefix_len: 1 };
            t.push_group(&tokens, [segment], &[]);
        }
        let b = Cpu::<f64>::new(1);
        let [p, q] = [wave(vocab * WIDTH, 1.3), wave(vocab * WIDTH, 0.9)];
        let mut head = Head::comparing(&b, WIDTH, vocab, 8).unwrap();
        let [of_policy, of_reference] = &hidden;
        let all = head.compare(&b, [(&p).into(), (&q).into()], [of_policy, of_reference], &t).unwrap();
        let (mut mass, mut mean, mut enumerated, mut from) = (0.0, 0.0, 0.0, 0);
        for response in t.lengths() {
            let rows = &all[from..from + response];
            from += response;
            let sum = |f: fn(&Compared) -> f64| rows.iter().map(f).sum::<f64>();
            let (ln_p, ln_q) = (sum(|r| r.row.logp), sum(|r| r.reference));
            mass += ln_p.exp();
            mean += ln_p.exp() * sum(|r| r.kl);
            enumerated += ln_p.exp() * (ln_p - ln_q);
        }
        // Logits below 2 · WIDTH, so logarithms below 20 + ln 3 each: three of them a response, a dozen roundings.
        let bound = 3.0 * 22.0 * 12.0 * f64::EPSILON;
        assert!((mass - 1.0).abs() <= bound, "probabilities add up to {mass}");
        assert!(mean > 0.1 && (mean - enumerated).abs() <= bound * mean.max(1.0), "{mean} not {enumerated}");
    }
}
