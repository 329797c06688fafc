-- What people ask most. Words are compared by name, as the vocabulary has it: images_with('Dogs') finds the label dog.

-- Images with a label of this name, the highest score first. The labels are found first, being few; of images
-- shard and index are compared, which take less reading than ids.
CREATE MACRO images_with(what, min_score := 0) AS TABLE
WITH found AS MATERIALIZED (
    SELECT run, shard, index, rank, label, score, image_id
    FROM labels
    WHERE name = name_of(what) AND score >= min_score
)
SELECT run, shard, key, rank, label, score, caption, found.image_id
FROM found JOIN images USING (run, shard, index)
ORDER BY score DESC, run, shard, key;

-- Labels of the image of this key, in every run, best first.
CREATE MACRO labels_of(which) AS TABLE
SELECT run, shard, key, rank, label, name, score
FROM images JOIN labels USING (run, shard, image_id)
WHERE key = which
ORDER BY run, shard, rank;

-- Names that stand beside this one, and the share of its images on which they do.
CREATE MACRO cooccurring(what) AS TABLE
WITH
chosen AS (
    SELECT DISTINCT run, image_id FROM labels WHERE name = name_of(what)
),
beside AS (
    SELECT DISTINCT run, image_id, name FROM labels SEMI JOIN chosen USING (run, image_id) WHERE name <> name_of(what)
)
SELECT name, count(*) AS images, count(*) / (SELECT count(*) FROM chosen) AS share
FROM beside
GROUP BY name
ORDER BY images DESC, name;

-- Names of a run by the number of their images. An image has a label once: images are counted one by one only for names of
-- several spellings.
CREATE MACRO top_labels(of_run) AS TABLE
WITH
counted AS (
    SELECT name, count(*) AS n_spellings, sum(n_labels) AS n_labels, sum(score_sum) AS score_sum
    FROM (SELECT label, count(*) AS n_labels, sum(score) AS score_sum FROM stored_labels WHERE run = of_run GROUP BY label)
    JOIN spellings USING (label)
    WHERE name IS NOT NULL
    GROUP BY name
),
several AS (
    SELECT name, count(DISTINCT image_id) AS images
    FROM labels SEMI JOIN (SELECT name FROM counted WHERE n_spellings > 1) USING (name)
    WHERE run = of_run
    GROUP BY name
)
SELECT name, coalesce(images, n_labels)::BIGINT AS images, score_sum / n_labels AS mean_score
FROM counted LEFT JOIN several USING (name)
ORDER BY images DESC, name;

-- Of each run, over its images with given labels: the mean share of these among the first k names, and the share of
-- images with any of them there.
CREATE MACRO recall_at(k) AS TABLE
WITH
listed AS (
    SELECT run, image_id, name, row_number() OVER (PARTITION BY run, image_id ORDER BY min(rank)) AS name_rank
    FROM labels
    WHERE name IS NOT NULL
    GROUP BY run, image_id, name
),
per_image AS (
    SELECT
        run,
        avg(coalesce(name_rank <= k, false)::INT) AS recall,
        max(coalesce(name_rank <= k, false)::INT) AS hit
    FROM (SELECT DISTINCT run, image_id, name FROM truth WHERE name IS NOT NULL)
    LEFT JOIN listed USING (run, image_id, name)
    GROUP BY run, image_id
)
SELECT run, count(*) AS images, avg(recall) AS recall, avg(hit) AS hit
FROM per_image
GROUP BY run
ORDER BY run;

-- Of each two reviewers of a run: the names that both judged, the share on which they agree, and how far that is above
-- what chance would give (Cohen's kappa; 1 is all, 0 is chance).
CREATE MACRO review_agreement(of_run) AS TABLE
WITH
verdicts AS (
    SELECT reviewer, image_id, name, max(verdict <> 'no')::INT AS is_true
    FROM reviews
    WHERE run = of_run AND verdict <> 'unsure' AND name IS NOT NULL
    GROUP BY reviewer, image_id, name
),
pairs AS (
    SELECT
        a.reviewer AS reviewer_a,
        b.reviewer AS reviewer_b,
        count(*) AS names,
        avg((a.is_true = b.is_true)::INT) AS agreement,
        avg(a.is_true) * avg(b.is_true) + (1 - avg(a.is_true)) * (1 - avg(b.is_true)) AS by_chance
    FROM verdicts AS a JOIN verdicts AS b USING (image_id, name)
    WHERE a.reviewer < b.reviewer
    GROUP BY ALL
)
SELECT
    reviewer_a, reviewer_b, names, agreement,
    CASE WHEN by_chance < 1 THEN (agreement - by_chance) / (1 - by_chance) END AS kappa
FROM pairs
ORDER BY reviewer_a, reviewer_b;

-- Images that look like an earlier one of their run, each beside the nearest of these, of several the first. Hashes that
-- differ in few bits are cut into parts: in one part at least they differ in no more than their share of these bits. So
-- only hashes are compared of which a part is the same once a mask of so few bits has changed it. Long parts are best where
-- few bits differ, as of three parts there would be too many masks otherwise. Each hash is looked at once, however many
-- images have it. DuckDB knows how long a range is, and so keeps in memory the side of the join that no masks multiply.
CREATE MACRO near_duplicates(max_distance := 4) AS TABLE
WITH
firsts AS (
    SELECT
        run AS of_run, phash AS bits,
        dense_rank() OVER (ORDER BY run) AS run_number, row_number() OVER (ORDER BY run, min((shard, index))) AS place,
        arg_min({'shard': shard, 'index': index, 'key': key, 'image_id': image_id}, (shard, index)) AS first
    FROM images
    WHERE phash IS NOT NULL
    GROUP BY run, phash
),
cuts AS (
    SELECT *
    FROM (
        VALUES (3, 0, 0, 22), (3, 1, 22, 21), (3, 2, 43, 21), (4, 0, 0, 16), (4, 1, 16, 16), (4, 2, 32, 16), (4, 3, 48, 16)
    ) AS cuts(n_parts, number, start, width)
    WHERE n_parts = CASE WHEN max_distance <= 8 THEN 3 ELSE 4 END
),
parts AS (
    SELECT place, bits, number, ((4 * run_number + number) << 22) + ((bits >> start) & ((1 << width) - 1)) AS part
    FROM firsts, cuts
),
masks AS MATERIALIZED (
    SELECT number, mask
    FROM cuts, range(4194304) AS masks(mask)
    WHERE mask < (1 << width) AND bit_count(mask) <= max_distance // n_parts
),
near AS (
    SELECT
        one.place AS place,
        arg_min(other.place, (bit_count(xor(one.bits, other.bits)), other.place)) AS first_place,
        min(bit_count(xor(one.bits, other.bits))) AS distance
    FROM
        (SELECT place, bits, xor(part, mask) AS part FROM parts JOIN masks USING (number)) AS one
        JOIN parts AS other USING (part)
    WHERE other.place < one.place AND bit_count(xor(one.bits, other.bits)) <= max_distance
    GROUP BY one.place
),
found AS (
    SELECT images.*, CASE WHEN image_id = first.image_id THEN near.distance ELSE 0 END AS distance,
        CASE WHEN image_id = first.image_id THEN near.first_place ELSE firsts.place END AS first_place
    FROM
        images JOIN firsts ON run = of_run AND phash = bits
        LEFT JOIN near USING (place)
)
SELECT
    run, shard, index, key, first.shard AS first_shard, first.index AS first_index, first.key AS first_key, distance,
    phash, image_id, first.image_id AS first_image_id
FROM found JOIN firsts ON first_place = place;

-- These at the distance that images are skipped at by default.
CREATE VIEW near_duplicates AS
SELECT *
FROM near_duplicates();

-- What a name is called in a language; the name itself where the vocabulary does not say it. Inside, columns have names
-- that no argument has: those of a macro's arguments are looked up inside first.
CREATE MACRO display_name(what, in_language) AS
coalesce(
    (
        SELECT shown_text
        FROM (SELECT name AS shown_name, language AS shown_language, display AS shown_text FROM display_names)
        WHERE shown_name = what AND shown_language = in_language
    ),
    what
);
