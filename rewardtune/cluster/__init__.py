"""A run on Ray: started, or submitted as a job. Only here is Ray known beside its transport."""
