"""What runs in the processes of a cluster: plain objects, each built from JSON in its own.

A *service* is what an operator sees and the driver keeps alive: a sampler, the learner, a reward
worker. Its *host* is the object in its process that does the work; when the process dies, the
service gets another host.
"""
