# Copyright 2026 The gqa_t5x Authors.
# SPDX-License-Identifier: Apache-2.0
"""seqio tasks: the paper's, the embedded ones and a user's own files.

Always `gqa_t5x.tasks`, in a checkout as in a wheel: under the name `tasks`
the same files would be imported twice and seqio would meet each task twice.
"""

if __name__ == 'tasks':
  raise ImportError(
      'expected this package as "gqa_t5x.tasks", got "tasks"; write '
      '"import gqa_t5x.tasks" (or bind "gqa_t5x.tasks..." in gin)'
  )
