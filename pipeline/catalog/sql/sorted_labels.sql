-- Labels as a compacted file holds them: those of one spelling together, the highest scores first.
SELECT *
FROM labels
ORDER BY label, score DESC, image_id;
