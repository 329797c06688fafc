-- Rejected samples of a run, of one error class or stage where asked for. Rows of empty key stand for no sample.
SELECT shard, "index", key
FROM rejects
WHERE run = $run
    AND key <> ''
    AND ($error IS NULL OR error = $error)
    AND ($stage IS NULL OR stage = $stage)
ORDER BY shard, "index";
