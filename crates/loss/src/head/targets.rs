//! Which rows of a packed batch predict which tokens.

use super::row::{ResponseStats, Row};
use duel_backend::Segment;
use std::ops::Range;

/// Which rows of a packed batch predict which tokens.
///
/// The last row of the prompt predicts the first token of every response; a response without prompt has nothing
/// that predicts its first token, which is then not scored. Nor are the rows of a response that are given: in a
/// conversation, what others than the model say.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pub(super) rows: Vec<u32>,
    pub(super) tokens: Vec<u32>,
    /// How much each token's log-probability counts in its response's sum.
    weights: Vec<f64>,
    /// Rows of each response, and of each prompt that is scored.
    responses: Vec<Range<usize>>,
    groups: Vec<Range<usize>>,
}

impl Targets {
    /// Removes all groups, keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.tokens.clear();
        self.weights.clear();
        self.responses.clear();
        self.groups.clear();
    }

    /// The row of the batch that predicts each scored token, response after response.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Adds a group: the segments of its responses in a batch of `tokens`, and the rows in them whose tokens are
    /// `given`, in order.
    pub fn push_group(
        &mut self,
        tokens: &[u32],
        responses: impl IntoIterator<Item = Segment>,
        given: &[Range<usize>],
    ) {
        let first = self.responses.len();
        let mut given = given.iter().peekable();
        for s in responses {
            let from = self.rows.len();
            for (at, &token) in tokens.iter().enumerate().skip(s.start).take(s.len) {
                while given.next_if(|run| run.end <= at).is_some() {}
                let before = match at.checked_sub(1) {
                    _ if given.peek().is_some_and(|run| run.start <= at) => None,
                    _ if at == s.start && s.prefix_len == 0 => None,
                    _ if at == s.start => Some(s.prefix_start + s.prefix_len - 1),
                    before => before,
                };
                if let Some(before) = before {
                    self.rows.push(before as u32);
                    self.tokens.push(token);
                }
            }
            self.responses.push(from..self.rows.len());
        }
        self.weights.resize(self.rows.len(), 1.0);
        self.groups.push(first..self.responses.len());
    }

    /// Lets the tokens of the last group's responses that lie beyond the length of its shortest count `alpha` each
    /// (length-desensitised DPO: Liu et al., 2024).
    pub fn discount_tails(&mut self, alpha: f64) {
        let Some(group) = self.groups.last().cloned() else { return };
        let responses = &self.responses[group];
        let shortest = responses.iter().map(|r| r.len()).min().unwrap_or(0);
        for response in responses {
            self.weights[response.start + shortest..response.end].fill(alpha);
        }
    }

    /// Scores the prompt of the last group too, as if it were one more response after the others: all its tokens but
    /// the first. Nothing where there is no prompt, and still one more response.
    pub fn push_prompt(&mut self, tokens: &[u32], prompt: Option<Segment>) {
        let Some(group) = self.groups.pop() else { return };
        self.push_group(tokens, prompt, &[]);
        if prompt.is_none() {
            self.responses.push(self.rows.len()..self.rows.len());
        }
        self.groups.pop();
        self.groups.push(group.start..self.responses.len());
    }

    /// Rows that the head runs on: scored tokens.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no token is scored.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of responses over all groups, prompts that are scored among them.
    pub fn responses(&self) -> usize {
        self.responses.len()
    }

    /// Scored tokens of every response.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        self.responses.iter().map(Range::len)
    }

    /// The sums of every response, given what the head says of all rows.
    pub fn sums(&self, rows: &[Row]) -> Vec<ResponseStats> {
        self.responses.iter().map(|r| self.sum(r.clone(), rows, 0)).collect()
    }

    /// The sum over `response`, where the first of `rows` is row `first`.
    fn sum(&self, response: Range<usize>, rows: &[Row], first: usize) -> ResponseStats {
        ResponseStats::of(&rows[response.start - first..response.end - first], &self.weights[response])
    }

    /// Makes of an objective of responses, which gives the derivative by each one's summed log-probability, the
    /// objective of rows that [`Head::loss`](super::Head::loss) asks.
    pub fn by_response(
        &self,
        mut objective: impl FnMut(usize, &[ResponseStats], &mut [f64]),
    ) -> impl FnMut(usize, &[Row], &mut [f64]) {
        let (mut sums, mut slopes) = (Vec::new(), Vec::new());
        move |group, rows, coefs| {
            let first = self.rows_of(group..group + 1).start;
            let responses = &self.responses[self.groups[group].clone()];
            sums.clear();
            sums.extend(responses.iter().map(|r| self.sum(r.clone(), rows, first)));
            slopes.clear();
            slopes.resize(sums.len(), 0.0);
            objective(group, &sums, &mut slopes);
            for (response, slope) in responses.iter().zip(&slopes) {
                for row in response.clone() {
                    coefs[row - first] = slope * self.weights[row];
                }
            }
        }
    }

    /// The responses of consecutive groups.
    pub(super) fn responses_of(&self, groups: Range<usize>) -> Range<usize> {
        if groups.is_empty() {
            0..0
        } else {
            self.groups[groups.start].start..self.groups[groups.end - 1].end
        }
    }

    /// Where the rows of consecutive responses begin, counted from row `first`, and where the last ones end.
    pub(super) fn ends_of(&self, responses: &Range<usize>, first: usize) -> impl Iterator<Item = u32> {
        let ends = self.responses[responses.clone()].iter().map(move |r| (r.end - first) as u32);
        std::iter::once(0).chain(ends)
    }

    /// How much the log-probability of each of these rows counts.
    pub(super) fn weights_of(&self, rows: Range<usize>) -> &[f64] {
        &self.weights[rows]
    }

    /// The scored tokens of consecutive groups, among all that are scored.
    pub fn rows_of(&self, groups: Range<usize>) -> Range<usize> {
        let r = self.responses_of(groups);
        if r.is_empty() { 0..0 } else { self.responses[r.start].start..self.responses[r.end - 1].end }
    }

    /// Runs of groups that fit `capacity` rows together; a larger group stands alone.
    pub(super) fn chunks(&self, capacity: usize) -> Vec<Range<usize>> {
        let mut chunks: Vec<Range<usize>> = Vec::new();
        let mut rows = 0;
        for g in 0..self.groups.len() {
            let n = self.rows_of(g..g + 1).len();
            match chunks.last_mut() {
                Some(c) if rows + n <= capacity => {
                    c.end = g + 1;
                    rows += n;
                }
                _ => {
                    chunks.push(g..g + 1);
                    rows = n;
                }
            }
        }
        chunks
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn targets() -> (Targets, Vec<u32>) {
        let tokens: Vec<u32> = (0..12).map(|i| (i * 5) % 7).collect();
        let prompt = |start, len, prefix_start, prefix_len| Segment { start, len, prefix_start, prefix_len };
        let mut t = Targets::default();
        t.push_group(&tokens, [prompt(2, 3, 0, 2), prompt(5, 1, 0, 2)], &[]);
        t.push_group(&tokens, [prompt(6, 3, 0, 0), prompt(9, 3, 0, 0)], &[]);
        (t, tokens)
    }

    #[test]
    fn rows_predict_the_next_token_of_their_response() {
        let (t, tokens) = targets();
        assert_eq!(t.rows, [1, 2, 3, 1, 6, 7, 9, 10]);
        let want: Vec<u32> = [2, 3, 4, 5, 7, 8, 10, 11].iter().map(|&i| tokens[i]).collect();
        assert_eq!(t.tokens, want);
        assert_eq!(t.chunks(4), [0..1, 1..2]);
        assert_eq!(t.chunks(8).len(), 1);
    }

    #[test]
    fn given_rows_are_not_scored() {
        let (tokens, mut t) = (targets().1, Targets::default());
        let response = |start, len| Segment { start, len, prefix_start: 0, prefix_len: 2 };
        t.push_group(&tokens, [response(2, 5), response(7, 3)], &[2..3, 4..6, 9..10]);
        assert_eq!(t.rows, [2, 5, 1, 7]);
        assert_eq!(t.tokens, [3, 6, 7, 8].map(|i: usize| tokens[i]));
        assert_eq!(t.responses, [0..2, 2..4]);
    }

    #[test]
    fn tails_count_less() {
        let (mut t, _) = targets();
        t.discount_tails(0.5);
        assert_eq!(t.weights, [1.0; 8]);
        let response = |start, len| Segment { start, len, prefix_start: 0, prefix_len: 2 };
        t.push_group(&[0; 12], [response(2, 4), response(6, 2), response(8, 3)], &[]);
        t.discount_tails(0.5);
        assert_eq!(t.weights[8..], [1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5]);
    }

    #[test]
    fn a_scored_prompt_is_one_more_response() {
        let (tokens, mut t) = (targets().1, Targets::default());
        let segment = |start, len, prefix_len| Segment { start, len, prefix_start: 0, prefix_len };
        t.push_group(&tokens, [segment(3, 2, 3)], &[]);
        t.push_prompt(&tokens, Some(segment(0, 3, 0)));
        t.push_group(&tokens, [segment(5, 2, 0)], &[]);
        t.push_prompt(&tokens, None);
        assert_eq!(t.rows, [2, 3, 0, 1, 5]);
        assert_eq!(t.tokens, [3, 4, 1, 2, 6].map(|i: usize| tokens[i]));
        assert_eq!(t.responses, [0..2, 2..4, 4..5, 5..5]);
        assert_eq!(t.groups, [0..2, 2..4]);
    }

    /// Sums of responses are sums of their rows, and a response's slope goes to each of its rows by the row's weight.
    #[test]
    fn responses_are_sums_of_rows() {
        let (mut t, tokens) = targets();
        t.push_group(&tokens, [Segment { start: 3, len: 2, prefix_start: 0, prefix_len: 3 }], &[]);
        t.weights[9] = 0.5;
        let row = |i: usize| Row { logp: -(i as f64), entropy: 1.0, collision: -0.25, ..Row::default() };
        let rows: Vec<Row> = (0..10).map(row).collect();
        let sums = t.sums(&rows);
        assert_eq!(sums.iter().map(|s| s.logp).collect::<Vec<_>>(), [-3.0, -3.0, -9.0, -13.0, -12.5]);
        assert_eq!((sums[4].tokens, sums[4].entropy, sums[4].certainty), (2, 2.0, -16.5));
        let mut coefs = [0.0; 2];
        t.by_response(|group, stats, slopes| {
            assert_eq!((group, stats), (2, &sums[4..]));
            slopes[0] = 3.0;
        })(2, &rows[8..], &mut coefs);
        assert_eq!(coefs, [3.0, 1.5]);
    }
}
