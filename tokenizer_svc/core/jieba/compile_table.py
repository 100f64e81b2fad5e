#!/usr/bin/python3
"""Compiles jieba's dictionary and HMM tables (Debian python3-jieba) into the one file that jieba.cc maps.

usage: compile_table.py OUTPUT

The layout is described in jieba.h. All logarithms are taken here, by the same math.log that Python jieba
uses, so that the C++ side adds the very same doubles. Words with a character that can never stand inside
a block (jieba.h) are unreachable and left out; their frequencies still count in the total.
"""
import importlib.util
import math
import os
import struct
import sys

MAGIC = b'HLJIEBA1'
HAN_BEGIN, HAN_END = 0x4E00, 0x9FD5 + 1
ASCII = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+#&._%-'
MIN_FLOAT = -3.14e100
PREFIX_ONLY = 1.0  # weights are logarithms of probabilities, so a positive one is free as a mark
NO_PARENT = 0xFFFFFFFF
STATES = 'BEMS'  # in the order in which Python breaks ties

CODES = {chr(c): c - HAN_BEGIN for c in range(HAN_BEGIN, HAN_END)}
CODES.update({c: HAN_END - HAN_BEGIN + i for i, c in enumerate(ASCII)})


def package_folder():
  spec = importlib.util.find_spec('jieba')
  if spec is None:
    sys.exit('compile_table.py: no module jieba (Debian: python3-jieba)')
  return os.path.dirname(spec.origin)


def read_words(path):
  """Returns {word: freq} of the reachable words and the total over all lines, as gen_pfdict does."""
  words, total = {}, 0
  with open(path, encoding='utf-8') as lines:
    for line in lines:
      word, freq = line.strip().split(' ')[:2]
      total += int(freq)
      words[word] = int(freq)
  reachable = {w: f for w, f in words.items() if w and all(c in CODES for c in w)}
  return reachable, total


def build_trie(words, log_total):
  """Returns (children, weights): children[n] = {code: node}; node 0 is the root."""
  children, weights = [{}], [PREFIX_ONLY]
  for word, freq in words.items():
    node = 0
    for char in word:
      code = CODES[char]
      following = children[node].get(code)
      if following is None:
        following = len(children)
        children[node][code] = following
        children.append({})
        weights.append(PREFIX_ONLY)
      node = following
    if freq > 0:
      weights[node] = math.log(freq) - log_total
  return children, weights


def place(children):
  """Double-array placement: the slot of every node, the base of every parent, the number of slots.

  The child of a node by a code is in slot base + code. Parents with many children come first, each at the
  first place where all its children find free slots, but not in a region that proved too dense for
  parents of its size; parents of one child fill the holes in the end.
  """
  count = len(children)
  order = sorted((n for n in range(count) if children[n]), key=lambda n: (-len(children[n]), n))
  used = bytearray(4 * count + 2 * len(CODES))
  slot_of, base_of = [0] * count, [0] * count
  used[0] = 1
  start, size_class = 1, 1 << 30
  for node in order:
    codes = sorted(children[node])
    first, rest = codes[0], codes[1:]
    if len(codes) < size_class // 2 or (len(codes) == 1 and size_class > 1):
      size_class, start = len(codes), 1
    slot = used.index(0, start)
    tries = 0
    while any(used[slot - first + code] for code in rest):
      slot = used.index(0, slot + 1)
      tries += 1
    if tries > 50 or not rest:
      start = slot
    base_of[node] = slot - first
    for code in codes:
      used[slot - first + code] = 1
      slot_of[children[node][code]] = slot - first + code
  return slot_of, base_of, used.rindex(1) + 1


def hmm_tables(folder):
  """Returns (start[4], trans[4][4], emit[21k][4]) in the order of STATES, absent entries MIN_FLOAT."""
  tables = {}
  for name in ('start', 'trans', 'emit'):
    scope = {}
    with open(os.path.join(folder, 'finalseg', f'prob_{name}.py'), encoding='utf-8') as source:
      exec(compile(source.read(), name, 'exec'), scope)  # Debian's own module, two literals
    tables[name] = scope['P']
  start = [tables['start'][s] for s in STATES]
  trans = [[tables['trans'][a].get(b, MIN_FLOAT) for b in STATES] for a in STATES]
  emit = [[tables['emit'][s].get(chr(c), MIN_FLOAT) for s in STATES]
          for c in range(HAN_BEGIN, HAN_END)]
  return start, trans, emit


def main():
  if len(sys.argv) != 2:
    sys.exit(__doc__)
  folder = package_folder()
  words, total = read_words(os.path.join(folder, 'dict.txt'))
  log_total = math.log(total)
  children, weights = build_trie(words, log_total)
  slot_of, base_of, slots = place(children)
  start, trans, emit = hmm_tables(folder)

  node_format = struct.Struct('<iId')
  nodes = bytearray(node_format.pack(0, NO_PARENT, PREFIX_ONLY) * slots)
  parent_of = {child: n for n in range(len(children)) for child in children[n].values()}
  for node, weight in enumerate(weights):
    parent = slot_of[parent_of[node]] if node else NO_PARENT
    node_format.pack_into(nodes, slot_of[node] * node_format.size, base_of[node], parent, weight)
  flat = [x for row in [start] + trans + emit for x in row]
  unknown = math.log(1) - log_total  # a character that is no word counts as one of frequency 1
  header = struct.pack('<8sIIIxxxxd', MAGIC, slots, max(map(len, words)), HAN_END - HAN_BEGIN, unknown)
  temporary = sys.argv[1] + '.tmp'
  with open(temporary, 'wb') as output:
    output.write(header.ljust(32, b'\0') + nodes + struct.pack(f'<{len(flat)}d', *flat))
  os.replace(temporary, sys.argv[1])


if __name__ == '__main__':
  main()
