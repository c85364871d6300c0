-- What an operator set for one host alone; NULL: the coordinator's [limits] hold.
ALTER TABLE host ADD COLUMN max_incoming INTEGER CHECK (max_incoming >= 0);
ALTER TABLE host ADD COLUMN max_outgoing INTEGER CHECK (max_outgoing >= 0);
ALTER TABLE host ADD COLUMN max_bandwidth_bytes_per_s INTEGER CHECK (max_bandwidth_bytes_per_s > 0);
ALTER TABLE host ADD COLUMN memory_keep_free_bytes INTEGER CHECK (memory_keep_free_bytes >= 0);
