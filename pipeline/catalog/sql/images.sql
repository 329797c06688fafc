-- Images of all runs. Files of runs that were made before `flat` was told have no such column, only those of runs that
-- reuse labels say of which image, and only those of runs with perceptual hashes have all columns. These come first, for
-- the order of the columns.
CREATE VIEW images AS
SELECT * FROM hashed_images
UNION ALL BY NAME
SELECT * FROM reusing_images
UNION ALL BY NAME
SELECT * FROM todays_images
UNION ALL BY NAME
SELECT * FROM former_images;
