// The restricted unpickler: what it builds, what it refuses by name, and that hostile pickles cost
// no more than errors.
#include "model/checkpoint/pickle.h"

#include "common/testing/testing.h"
#include "model/checkpoint/test_files.h"

namespace hanlin {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::LittleEndian;
using testing::PickleWriter;
using testing::StatusIs;
using Kind = PickleValue::Kind;
using namespace std::string_view_literals;  // NOLINT: opcodes contain NUL

constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

TEST(Pickle, BuildsPlainValuesAndStopsAtStop) {
  constexpr std::string_view kTrailing = "trailing";
  const std::string bytes = PickleWriter()
                                .Raw("}(")
                                .String("none")
                                .Raw("N")
                                .String("yes")
                                .Raw("\x88")
                                .String("byte")
                                .Raw("K\xff")
                                .String("short")
                                .Raw("M\x01\x02")
                                .String("int")
                                .Raw("J\xff\xff\xff\xff")
                                .String("long")
                                .Int(-5000000000)
                                .String("zero")
                                .Raw("\x8a\0"sv)
                                .String("float")
                                .Raw("G\x3f\xf8\0\0\0\0\0\0"sv)
                                .String("list")
                                .Raw("](NNe")
                                .String("pair")
                                .Raw("NN\x86")
                                .String("python2")
                                .Raw("U\x02hi")
                                .Raw("u")
                                .Stop() +
                            std::string(kTrailing);
  ASSERT_OK_AND_ASSIGN(const PickleDocument document, ReadPickle(bytes));
  EXPECT_EQ(document.bytes, bytes.size() - kTrailing.size());
  const PickleValue& root = *document.root;
  ASSERT_EQ(root.kind, Kind::kDict);
  EXPECT_EQ(root.Find("none")->kind, Kind::kNone);
  EXPECT_EQ(root.Find("yes")->integer, 1);
  EXPECT_EQ(root.Find("byte")->integer, 255);
  EXPECT_EQ(root.Find("short")->integer, 513);
  EXPECT_EQ(root.Find("int")->integer, -1);
  EXPECT_EQ(root.Find("long")->integer, -5000000000);
  EXPECT_EQ(root.Find("zero")->integer, 0);
  EXPECT_EQ(root.Find("float")->number, 1.5);
  EXPECT_EQ(root.Find("list")->items.size(), 2u);
  EXPECT_EQ(root.Find("pair")->kind, Kind::kTuple);
  EXPECT_EQ(root.Find("python2")->text, "hi");
  EXPECT_EQ(root.Find("absent"), nullptr);
}

TEST(Pickle, BuildsProtocol4Values) {
  // What Python 3.8 and later write for {'a': OrderedDict()}.
  const std::string bytes = std::string("\x80\x04\x95\x26\0\0\0\0\0\0\0}\x94\x8c\x01"sv) +
                            "a\x94\x8c\x0b" + "collections\x94\x8c\x0b" +
                            "OrderedDict\x94\x93\x94)R\x94s.";
  ASSERT_OK_AND_ASSIGN(const PickleDocument document, ReadPickle(bytes));
  ASSERT_NE(document.root->Find("a"), nullptr);
  EXPECT_EQ(document.root->Find("a")->kind, Kind::kDict);
}

TEST(Pickle, BuildsTensorsOfEveryRebuilder) {
  const std::string bytes = PickleWriter().Tensor("HalfStorage", "7", 20, 2, {3, 4}, {1, 3}).Stop();
  ASSERT_OK_AND_ASSIGN(const PickleDocument document, ReadPickle(bytes));
  ASSERT_EQ(document.root->kind, Kind::kTensor);
  EXPECT_EQ(document.root->tensor->dtype, DType::kFloat16);
  EXPECT_EQ(document.root->tensor->offset, 2);
  EXPECT_THAT(document.root->tensor->shape, ElementsAre(3, 4));
  EXPECT_THAT(document.root->tensor->strides, ElementsAre(1, 3));
  EXPECT_EQ(document.storages.at("7").elements, 20);

  PickleWriter parameter;
  parameter.Global("torch._utils", "_rebuild_parameter")
      .Raw("(")
      .Tensor("FloatStorage", "0", 4, 0, {4}, {1});
  const std::string wrapped = parameter.Raw("\x88NtR").Stop();
  ASSERT_OK_AND_ASSIGN(const PickleDocument inner, ReadPickle(wrapped));
  EXPECT_EQ(inner.root->kind, Kind::kTensor);
}

TEST(Pickle, AttributesOfAnOrderedDictAreIgnored) {
  PickleWriter writer;
  writer.Global("collections", "OrderedDict")
      .Raw(")R")
      .String("k")
      .Raw("Ns}")
      .String("_metadata")
      .Raw("}sb");
  const std::string bytes = writer.Stop();
  ASSERT_OK_AND_ASSIGN(const PickleDocument document, ReadPickle(bytes));
  EXPECT_NE(document.root->Find("k"), nullptr);
  EXPECT_EQ(document.root->Find("_metadata"), nullptr);
}

TEST(Pickle, WhatCouldRunCodeIsRefusedByName) {
  EXPECT_THAT(ReadPickle(PickleWriter()
                             .Global("os", "system")
                             .Raw("(")
                             .String("touch /tmp/owned")
                             .Raw("tR")
                             .Stop()),
              StatusIs(kRefused, HasSubstr("os.system")));
  EXPECT_THAT(ReadPickle(PickleWriter().Global("posix", "system").Stop()),
              StatusIs(kRefused, HasSubstr("posix.system")));
  EXPECT_THAT(ReadPickle(PickleWriter().String("builtins").String("eval").Raw("\x93").Stop()),
              StatusIs(kRefused, HasSubstr("builtins.eval")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw("(ios\nsystem\n").Stop()),
              StatusIs(kRefused, HasSubstr("os.system")));
  EXPECT_THAT(ReadPickle(PickleWriter().Global("argparse", "Namespace").Raw(")\x81").Stop()),
              StatusIs(kRefused, HasSubstr("argparse.Namespace")));
  // Allowed names in roles that they do not have.
  EXPECT_THAT(ReadPickle(PickleWriter().Global("torch", "FloatStorage").Raw(")R").Stop()),
              StatusIs(kRefused, HasSubstr("torch.FloatStorage")));
  EXPECT_THAT(ReadPickle(PickleWriter().Global("collections", "OrderedDict").Raw(")\x81").Stop()),
              StatusIs(kRefused, HasSubstr("0x81")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw("]}b").Stop()),
              StatusIs(kRefused, HasSubstr("state of a list")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw("\x82\x01").Stop()),
              StatusIs(kRefused, HasSubstr("0x82")));
  EXPECT_THAT(ReadPickle(PickleWriter().String("x").Raw(")R").Stop()),
              StatusIs(kDataLoss, HasSubstr("calls a string")));
  EXPECT_THAT(ReadPickle(PickleWriter().Global("os\x1b[2J", "system").Stop()),
              StatusIs(kRefused, HasSubstr("\\x1b")));
}

TEST(Pickle, DamagedStacksAndTextsAreErrors) {
  for (const std::string_view body :
       {"a", "s",     "u",    "e",   "t",   "0",    "1",     "\x85", "\x87",  "R",   "b",
        "Q", "q\x01", "\x94", "]Ne", "}Ns", "}(Nu", "(]NNs", "NNa",  "h\x07", "\x93"}) {
    EXPECT_FALSE(ReadPickle(PickleWriter().Raw(body).Stop()).ok()) << body;
  }
  EXPECT_THAT(ReadPickle(""), StatusIs(kDataLoss, HasSubstr("ends")));
  EXPECT_THAT(ReadPickle("\x80\x02N"), StatusIs(kDataLoss, HasSubstr("ends")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw("X").Raw(LittleEndian(0xffffffff, 4)).Stop()),
              StatusIs(kDataLoss, HasSubstr("4294967295")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw("\x8d").Raw(LittleEndian(~uint64_t{0}, 8)).Stop()),
              StatusIs(kDataLoss, HasSubstr("want")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw("\x8b").Raw(LittleEndian(0x7fffffff, 4)).Stop()),
              StatusIs(kDataLoss, HasSubstr("want")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw("c").Raw(std::string(100000, 'm')).Stop()),
              StatusIs(kDataLoss, HasSubstr("name")));
  EXPECT_FALSE(ReadPickle("I12\n.").ok()) << "text opcodes of protocol 0 are not used by torch";
}

TEST(Pickle, TensorsThatLieAreErrors) {
  constexpr int64_t kHuge = int64_t{1} << 62;
  EXPECT_THAT(ReadPickle(PickleWriter().Tensor("FloatStorage", "0", 11, 0, {3, 4}, {4, 1}).Stop()),
              StatusIs(kDataLoss, HasSubstr("11 elements")));
  EXPECT_FALSE(
      ReadPickle(PickleWriter().Tensor("FloatStorage", "0", kHuge, 0, {kHuge, 8}, {8, 1}).Stop())
          .ok());
  EXPECT_FALSE(
      ReadPickle(PickleWriter().Tensor("FloatStorage", "0", 12, -1, {3}, {1}).Stop()).ok());
  EXPECT_FALSE(
      ReadPickle(PickleWriter().Tensor("FloatStorage", "0", -12, 0, {3}, {1}).Stop()).ok());
  EXPECT_FALSE(
      ReadPickle(PickleWriter().Tensor("FloatStorage", "0", 12, 0, {1000000}, {0}).Stop()).ok());
  EXPECT_FALSE(ReadPickle(PickleWriter()
                              .Tensor("FloatStorage", "0", 12, 0, std::vector<int64_t>(9, 1),
                                      std::vector<int64_t>(9, 1))
                              .Stop())
                   .ok());
  EXPECT_THAT(ReadPickle(PickleWriter()
                             .Raw("(")
                             .Tensor("FloatStorage", "0", 12, 0, {3}, {1})
                             .Tensor("HalfStorage", "0", 12, 0, {3}, {1})
                             .Raw("t")
                             .Stop()),
              StatusIs(kDataLoss, HasSubstr("two ways")));
}

TEST(Pickle, SizeIsBounded) {
  EXPECT_THAT(ReadPickle(PickleWriter().Raw(std::string(2 << 20, ']')).Stop()),
              StatusIs(kExhausted, HasSubstr("values")));
  EXPECT_THAT(ReadPickle(PickleWriter().Raw(std::string(2 << 20, '(')).Stop()),
              StatusIs(kExhausted, HasSubstr("marks")));
  std::string recalls;
  for (int i = 0; i < 1100000; ++i) recalls += std::string_view("h\0", 2);
  EXPECT_THAT(ReadPickle(PickleWriter().Raw(std::string_view("Nq\0", 3)).Raw(recalls).Stop()),
              StatusIs(kExhausted, HasSubstr("stack")));
  // One long list copied into many OrderedDicts: a billion references from a megabyte.
  PickleWriter writer;
  writer.Raw(std::string_view("NN\x86q\0](", 7));
  for (int i = 0; i < 100000; ++i) writer.Raw(std::string_view("h\0", 2));
  writer.Raw("eq\x01").Global("collections", "OrderedDict").Raw("q\x02");
  for (int i = 0; i < 10000; ++i) writer.Raw("h\x02h\x01\x85R0");
  EXPECT_THAT(ReadPickle(writer.Stop()), StatusIs(kExhausted, HasSubstr("pairs")));
}

TEST(Pickle, NestingAndCyclesCostNoStack) {
  std::string deep(500000, ']');
  deep += std::string(499999, 'a');
  EXPECT_OK(ReadPickle(PickleWriter().Raw(deep).Stop()));
  const std::string cycle = PickleWriter()
                                .Raw(std::string_view("}q\0", 3))
                                .String("module")
                                .Raw(std::string_view("h\0s", 3))
                                .Stop();
  ASSERT_OK_AND_ASSIGN(const PickleDocument document, ReadPickle(cycle));
  EXPECT_EQ(document.root->Find("module"), document.root);
}

}  // namespace
}  // namespace hanlin
