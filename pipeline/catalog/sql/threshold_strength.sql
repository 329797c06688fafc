-- How alike names are, in $halves: if each name's hit rate is drawn from a beta distribution around what is expected at its
-- scores, how many pseudo-occurrences is that distribution worth? Of $strengths the largest that is not less likely than
-- the best by more than a 95 % interval allows (half of chi-square's 3.84).
WITH
per_name AS (
    SELECT
        sum(n_hits)::DOUBLE AS a,
        sum(n_listed - n_hits)::DOUBLE AS b,
        sum(n_listed * hit_rate) / sum(n_listed) AS mean
    FROM cells JOIN pooled USING (step)
    WHERE list_contains($halves, half)
    GROUP BY name
    HAVING mean > 0 AND mean < 1
),
priors AS (
    SELECT a, b, strength, strength * mean AS prior_a, strength * (1 - mean) AS prior_b
    FROM per_name CROSS JOIN (SELECT unnest($strengths)::DOUBLE AS strength)
),
likelihoods AS (
    SELECT
        strength,
        sum(
            lgamma(a + prior_a) - lgamma(prior_a)
            + lgamma(b + prior_b) - lgamma(prior_b)
            - lgamma(a + b + strength) + lgamma(strength)
        ) AS log_likelihood
    FROM priors
    GROUP BY strength
)
SELECT max(strength) AS strength
FROM likelihoods
WHERE log_likelihood >= (SELECT max(log_likelihood) FROM likelihoods) - 1.92;
