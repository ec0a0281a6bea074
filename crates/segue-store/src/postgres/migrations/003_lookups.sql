-- Beside its primary key no index of these tables holds the project. Both would fit a look-up of one row, and of a table that was empty when
-- the plan was made neither looks dearer: the wrong one finds the row among all of the project.
DROP INDEX agents_host;
CREATE INDEX agents_host ON agents (host);
DROP INDEX payload_refs_hash;
CREATE INDEX payload_refs_hash ON payload_refs (hash);
DROP INDEX state_versions_key;
CREATE INDEX state_versions_key ON state_versions (key, version);
